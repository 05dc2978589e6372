/**
 * How the daemon and a helper speak: packets of JSON on a SOCK_SEQPACKET socket, with fds. The helper says
 * first what it is; then every request has a number, which its answer repeats. An answer that is too long
 * for a packet lies in a memfd, which is the last fd of the packet.
 */

import { sys } from '../os/libc.ts'
import { closeAll } from '../os/unix-socket.ts'
import type { Serves } from './requests.ts'

/** What a helper says first. Both ends are of one version: an image is compared across them. */
export interface Hello {
  readonly serves: Serves
  readonly version: string
  /** Whether it has CAP_SYS_PTRACE. */
  readonly hasPtrace: boolean
}

/** The end of a request: a value, an errno of the kernel, or why it was refused. */
export type Outcome =
  | { readonly value: unknown }
  /** Negative. */
  | { readonly errno: number }
  | { readonly refused: { readonly reason: string; readonly message: string } }

export interface HelperAnswer {
  readonly outcome: Outcome
  /** The receiver's to close. */
  readonly fds: readonly number[]
}

/** Requests of one connection that are under way at once: the answers to so many fit into a socket. */
export const OUTSTANDING_MAX = 32

/** Bytes of an answer that go in the packet. */
const INLINE_MAX = 2048

/** Bytes of an answer at all. */
const ANSWER_MAX = 64 << 20

const MFD_CLOEXEC = 1

/** Undefined where it is not JSON. */
export const parsed = (bytes: Uint8Array): unknown => {
  try {
    return JSON.parse(Buffer.from(bytes).toString())
  } catch {
    return undefined
  }
}

/** The packet of an answer: its fds are sent beside those of the outcome, and closed afterwards. */
export const packed = (id: number, outcome: Outcome): { bytes: Buffer; memory: number[] } => {
  const whole = Buffer.from(JSON.stringify({ id, ...outcome }))
  if (whole.length <= INLINE_MAX) return { bytes: whole, memory: [] }
  const memory = sys.memfdCreate('vfiod-answer', MFD_CLOEXEC)
  const text = Buffer.from(JSON.stringify(outcome))
  const isWritten = memory >= 0 && writeWhole(memory, text)
  if (isWritten)
    return { bytes: Buffer.from(JSON.stringify({ id, length: text.length })), memory: [memory] }
  if (memory >= 0) sys.closeSync(memory)
  const refused = {
    reason: 'HELPER_UNAVAILABLE',
    message: 'the helper has no memory for its answer',
  }
  return { bytes: Buffer.from(JSON.stringify({ id, refused })), memory: [] }
}

const writeWhole = (fd: number, bytes: Uint8Array): boolean => {
  for (let at = 0; at < bytes.length; ) {
    const written = sys.writeSync(fd, bytes.subarray(at))
    if (written <= 0) return false
    at += written
  }
  return true
}

/** The number of the request and its answer; undefined for what is not an answer. */
export const unpacked = (
  bytes: Uint8Array,
  fds: readonly number[],
): { readonly id: number; readonly answer: HelperAnswer } | undefined => {
  const { id, length, ...inline } = (parsed(bytes) ?? {}) as Record<string, unknown>
  if (typeof id !== 'number') return undefined
  if (typeof length !== 'number') return { id, answer: { outcome: inline as Outcome, fds } }
  const memory = fds.at(-1)
  if (memory === undefined || length > ANSWER_MAX) return undefined
  const text = Buffer.alloc(length)
  const read = sys.preadSync(memory, text, 0n)
  const outcome = read === length ? parsed(text) : undefined
  if (outcome === undefined) return undefined
  void closeAll([memory])
  return { id, answer: { outcome: outcome as Outcome, fds: fds.slice(0, -1) } }
}
