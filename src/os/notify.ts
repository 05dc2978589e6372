/** The service manager's side of this process: sd_notify(3) and sd_listen_fds(3), by their specs. */

import { F_SETFD, FD_CLOEXEC, sys } from './libc.ts'
import { connectUnix, SOCK_DGRAM, sendMessage } from './unix-socket.ts'

/**
 * Sends one state message ("READY=1", "FDSTORE=1\nFDNAME=x"), with fds if it is about any; they
 * stay open here. 0 without NOTIFY_SOCKET, the number of bytes when sent, else -errno: -EAGAIN
 * when the manager's queue is full, so that the caller can try again.
 */
export const notify = (state: string, fds: readonly number[] = []): number => {
  const path = process.env.NOTIFY_SOCKET
  if (!path) return 0
  const socket = connectUnix(SOCK_DGRAM, path)
  if (socket < 0) return socket
  const answer = sendMessage(socket, Buffer.from(state), fds)
  sys.closeSync(socket)
  return answer
}

export interface InheritedFd {
  readonly fd: number
  /** FDNAME= of the fd store or FileDescriptorName= of the socket unit; 'unknown' without one. */
  readonly name: string
}

const LISTEN_FDS_START = 3

/** The fds that the service manager passed to this process; none when they were meant for another. */
export const listenFds = (): InheritedFd[] => {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = process.env
  if (Number(LISTEN_PID) !== process.pid) return []
  const count = Number(LISTEN_FDS)
  if (!Number.isInteger(count) || count < 1) return []
  const names = LISTEN_FDNAMES?.split(':') ?? []
  return Array.from({ length: count }, (_, index) => {
    const fd = LISTEN_FDS_START + index
    // They come without it, and must not leak into what this process starts.
    sys.fcntl(fd, F_SETFD, FD_CLOEXEC)
    return { fd, name: names[index] || 'unknown' }
  })
}
