/** Fronts as processes. */
import { spawn } from 'node:child_process'
import { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { RunningFront, StartFront } from '../api/transport/fronts.ts'
import { printable } from '../base/printable.ts'
import { LINK_MEMORY } from '../link/slots.ts'
import { SeqpacketConnection } from '../os/fd-passing.ts'
import { sys } from '../os/libc.ts'
import { hasCapability } from '../os/limits.ts'
import { allocShared, freeSegment } from '../os/memory.ts'
import { forbidIoUring } from '../os/seccomp.ts'
import { SOCK_SEQPACKET, SOCK_STREAM, socketPair } from '../os/unix-socket.ts'

const MAIN = fileURLToPath(new URL('../front/main.js', import.meta.url))

/** Mebibytes of V8's heap; RLIMIT_DATA bounds the rest. */
const HEAP_MIB = 256

/** The user of a front where the daemon may choose: it owns no files (fs.overflowuid). */
const OVERFLOW_UID = 65_534

/** Characters of its last words that the log has. */
const SAID_MAX = 1024

const canChangeUser = (): boolean =>
  process.geteuid?.() === 0 && hasCapability('CAP_SETUID') && hasCapability('CAP_SETGID')

let isWithoutIoUring = false

export const startFrontProcess: StartFront = (onExit): RunningFront => {
  if (!isWithoutIoUring) forbidIoUring()
  isWithoutIoUring = true
  const frames = socketPair(SOCK_STREAM)
  const [packets, uplink] = [socketPair(SOCK_SEQPACKET), socketPair(SOCK_SEQPACKET)]
  if (typeof frames === 'number' || typeof packets === 'number' || typeof uplink === 'number')
    throw new Error('Cannot start a front: no sockets')
  const memory = allocShared('vfiod-front', LINK_MEMORY)
  const child = spawn(process.execPath, [`--max-old-space-size=${HEAP_MIB}`, MAIN], {
    stdio: ['ignore', 'ignore', 'pipe', frames[1], packets[1], uplink[1], memory.fd],
    env: canChangeUser() ? { VFIOD_FRONT_UID: String(OVERFLOW_UID) } : {},
  })
  let said = ''
  child.stderr?.on('data', (bytes) => {
    said = printable(`${said}${bytes}`.slice(-SAID_MAX))
  })
  for (const fd of [frames[1], packets[1], uplink[1], memory.fd]) sys.closeSync(fd)
  // 'close', not 'exit': its last words have arrived by then.
  child.on('close', (code, signal) => onExit(`it ended with ${signal ?? code}: ${said}`))
  child.on('error', (error) => onExit(error.message))
  const view = memory.segment.bytes
  let isFreed = false
  return {
    frames: new Socket({ fd: frames[0] }),
    packets: new SeqpacketConnection(packets[0]),
    uplink: new SeqpacketConnection(uplink[0]),
    memory: Buffer.from(view.buffer, view.byteOffset, LINK_MEMORY),
    kill: () => {
      child.kill('SIGKILL')
      if (!isFreed) freeSegment(memory.segment)
      isFreed = true
    },
  }
}
