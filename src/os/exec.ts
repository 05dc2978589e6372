/** Becoming another program in place: execv(2), which keeps the pid, the environment and the output. */

import { bind, call } from './async-call.ts'
import { F_SETFD, sys } from './libc.ts'

const execv = bind('execv', 'int', ['str', 'char **'])

/** Input, output, and the sockets that systemd listens on for this process. */
const inherited = (): number[] => {
  const { LISTEN_PID, LISTEN_FDS = 0 } = process.env
  const sockets = LISTEN_PID === String(process.pid) ? Number(LISTEN_FDS) : 0
  return Array.from({ length: 3 + sockets }, (_, fd) => fd)
}

/**
 * Runs the program at this path in place of this one; answers -errno where it cannot. Node marks what
 * it inherited to be closed by an exec, so those that a service has are kept open here.
 */
export const become = (path: string, args: readonly string[]): number => {
  for (const fd of inherited()) sys.fcntl(fd, F_SETFD, 0)
  return call(execv, path, [path, ...args, null])
}
