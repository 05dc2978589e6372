/**
 * Who is at the other end of a Unix socket, told by the kernel. It is the process that called
 * connect(); the socket may have passed to another one since, and exec changes nothing here.
 */

import { ERRNO } from '../base/errno.ts'
import { sys } from './libc.ts'
import { isAlive, openPidfd, pidOf, processName, startTimeOf } from './process.ts'
import { socketOption, socketOptionLength } from './unix-socket.ts'

export { hasExited, isAlive, pidfdInode, processName, sameMm } from './process.ts'

/** What the peer was when it connected. */
export interface Credentials {
  /** 0 for a process that this pid namespace does not show. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** Supplementary groups. */
  readonly groups: readonly number[]
}

export interface Peer extends Credentials {
  /** Readable once the process has exited; the receiver's to close. */
  readonly pidfd: number
  /** Clock ticks since boot. */
  readonly startTime: bigint
  readonly comm: string
}

const SO_PEERCRED = 17
const SO_PEERGROUPS = 59
const SO_PEERPIDFD = 77

const peerGroups = (socketFd: number): number[] | number => {
  const length = socketOptionLength(socketFd, SO_PEERGROUPS)
  if (length < 0) return length
  const groups = new Uint32Array(length / 4)
  const answer = length === 0 ? 0 : socketOption(socketFd, SO_PEERGROUPS, bytesOf(groups))
  return answer < 0 ? answer : [...groups]
}

const bytesOf = (words: Uint32Array | Int32Array): Uint8Array =>
  new Uint8Array(words.buffer, words.byteOffset, words.byteLength)

/** By the socket since Linux 6.5; before that by number, which is sure only if the process was
 * there before and after, which `peerOf` checks by its start time. */
const peerPidfd = (socketFd: number, pid: number): number => {
  const pidfd = new Int32Array(1)
  const answer = socketOption(socketFd, SO_PEERPIDFD, bytesOf(pidfd))
  if (answer >= 0) return pidfd[0] as number
  return answer === -ERRNO.ENOPROTOOPT ? openPidfd(pid) : answer
}

/** Whose process connected, whether or not it is still there. */
export const credentialsOf = (socketFd: number): Credentials | number => {
  const credentials = new Uint32Array(3)
  const answer = socketOption(socketFd, SO_PEERCRED, bytesOf(credentials))
  if (answer < 0) return answer
  const [pid, uid, gid] = credentials as unknown as [number, number, number]
  const groups = peerGroups(socketFd)
  return typeof groups === 'number' ? groups : { pid, uid, gid, groups }
}

/** -ESRCH for a peer that is gone or that this pid namespace does not show. */
export const peerOf = (socketFd: number): Peer | number => {
  const credentials = credentialsOf(socketFd)
  if (typeof credentials === 'number') return credentials
  const { pid } = credentials
  if (pid === 0) return -ERRNO.ESRCH
  const before = startTimeOf(pid)
  if (typeof before === 'number') return before === -ERRNO.ENOENT ? -ERRNO.ESRCH : before
  const pidfd = peerPidfd(socketFd, pid)
  if (pidfd < 0) return pidfd

  // Alive after everything was read, so the pid cannot have passed to another process meanwhile.
  const found = { pid: pidOf(pidfd), comm: processName(pid), startTime: startTimeOf(pid) }
  const { comm, startTime } = found
  if (found.pid === pid && startTime === before && typeof comm === 'string' && isAlive(pidfd))
    return { ...credentials, pidfd, startTime, comm }
  sys.closeSync(pidfd)
  // What could not be read, for want of an fd perhaps, says nothing about the process.
  const failed = Object.values(found).find((value) => typeof value === 'number' && value < 0)
  return typeof failed === 'number' && failed !== -ERRNO.ENOENT ? failed : -ERRNO.ESRCH
}
