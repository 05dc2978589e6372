/** Processes of this machine, by /proc and pidfd. A pid may be reused; a pidfd never is. */

import { readFileSync, statfsSync } from 'node:fs'
import { ERRNO } from '../base/errno.ts'
import { printable } from '../base/printable.ts'
import { inodeOf } from './file-identity.ts'
import { POLLIN, pendingEvents, sys } from './libc.ts'

const SYS_PIDFD_OPEN = 434
const SYS_KCMP = process.arch === 'x64' ? 312 : 272
const KCMP_VM = 1
const PID_FS_MAGIC = 0x50494446n

/** The text of a file under /proc, or -errno. */
export const readProc = (path: string): string | number => {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -ERRNO.EIO
  }
}

/** pidfd_open(2): -ESRCH for a pid that is gone, or is not the first thread of its process. */
export const openPidfd = (pid: number): number => sys.syscall(SYS_PIDFD_OPEN, pid, 0)

/** Whether the process still runs: false from its exit on, also while it is a zombie. */
export const isAlive = (pidfd: number): boolean => pendingEvents(pidfd, POLLIN) === 0

/**
 * Whether the process is known to have exited: the opposite of `isAlive` unless poll(2) fails, or reports
 * another event, as it does for a number that is not an open fd.
 */
export const hasExited = (pidfd: number): boolean => {
  const events = pendingEvents(pidfd, POLLIN)
  return events > 0 && (events & POLLIN) !== 0
}

/** A key that no other process gets until the next boot; -EOPNOTSUPP before Linux 6.9. */
export const pidfdInode = (pidfd: number): bigint | number => {
  const inode = inodeOf(pidfd)
  if (typeof inode === 'number') return inode
  const { type } = statfsSync(`/proc/self/fd/${pidfd}`, { bigint: true })
  return BigInt.asUintN(32, type) === PID_FS_MAGIC ? inode : -ERRNO.EOPNOTSUPP
}

/** The pid behind a pidfd as this process sees it: -ESRCH once it is reaped, 0 where invisible. */
export const pidOf = (pidfd: number): number => {
  const info = readProc(`/proc/self/fdinfo/${pidfd}`)
  if (typeof info === 'number') return info
  const pid = Number(/^Pid:\s*(-?\d+)$/m.exec(info)?.[1] ?? -1)
  return pid < 0 ? -ERRNO.ESRCH : pid
}

/** proc(5), stat field 22: clock ticks since boot. The name in field 2 may contain anything. Of the
 * first thread, because that of the process adds up all of its threads. */
export const startTimeOf = (pid: number): bigint | number => {
  const stat = readProc(`/proc/${pid}/task/${pid}/stat`)
  if (typeof stat === 'number') return stat
  return BigInt(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? 0)
}

/** Differs from one boot of the machine to the next. */
export const bootId = (): string => {
  const id = readProc('/proc/sys/kernel/random/boot_id')
  return typeof id === 'string' ? id.trim() : ''
}

/** What the process calls itself (comm): for messages, never for decisions. */
export const processName = (pid: number): string | number => {
  const comm = readProc(`/proc/${pid}/comm`)
  return typeof comm === 'number' ? comm : printable(comm.replace(/\n$/, ''))
}

/** Whether two processes share an address space at this moment; undefined when the kernel does
 * not tell: one is gone, we may not look at it, or kcmp is not built in. Waits while one of them execs. */
export const sameMm = async (pidA: number, pidB: number): Promise<boolean | undefined> => {
  const order = await sys.syscallAside(SYS_KCMP, pidA, pidB, KCMP_VM)
  return order < 0 ? undefined : order === 0
}
