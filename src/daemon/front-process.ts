/** Fronts as child processes of the owner: where no service manager starts them. */
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { StartFront } from '../api/transport/running-front.ts'
import { printable } from '../base/printable.ts'
import { hasCapability } from '../os/limits.ts'
import { forbidIoUring } from '../os/seccomp.ts'
import { makeFrontEnds } from './front-ends.ts'

const MAIN = fileURLToPath(new URL('../front/main.js', import.meta.url))

/** Mebibytes of V8's heap, as in bin/vfiod-front; RLIMIT_DATA bounds the rest. */
export const HEAP_MIB = 256

/** The user of a front where the daemon may choose: it owns no files (fs.overflowuid). */
export const OVERFLOW_UID = 65_534

/** Characters of its last words that the log has. */
const SAID_MAX = 1024

/** Whether the owner can give a front another user, and still end it. */
export const canChangeUser = (): boolean =>
  process.geteuid?.() === 0 &&
  (['CAP_SETUID', 'CAP_SETGID', 'CAP_KILL'] as const).every(hasCapability)

let isWithoutIoUring = false

export const startFrontProcess: StartFront = (onExit) => {
  if (!isWithoutIoUring) forbidIoUring()
  isWithoutIoUring = true
  const ends = makeFrontEnds()
  const child = spawn(process.execPath, [`--max-old-space-size=${HEAP_MIB}`, MAIN], {
    stdio: ['ignore', 'ignore', 'pipe', ...ends.fds],
    env: canChangeUser() ? { VFIOD_FRONT_UID: String(OVERFLOW_UID) } : {},
  })
  let said = ''
  child.stderr?.on('data', (bytes) => {
    said = printable(`${said}${bytes}`.slice(-SAID_MAX))
  })
  ends.given()
  // 'close', not 'exit': its last words have arrived by then.
  child.on('close', (code, signal) => onExit(`it ended with ${signal ?? code}: ${said}`))
  child.on('error', (error) => onExit(error.message))
  return {
    ...ends.own,
    kill: () => {
      child.kill('SIGKILL')
      ends.free()
    },
  }
}
