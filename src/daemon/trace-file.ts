/**
 * Where the trace of the kernel's calls goes: a file, or stderr. Lines that come faster than they
 * can be written are dropped and counted, so that a full disk or a reader that has stopped holds
 * nothing up.
 */
import { constants, fstatSync, openSync, type Stats, write, writeSync } from 'node:fs'
import { ConfigError } from './config-error.ts'

/** Bytes in memory beyond which lines are dropped. */
const PENDING_MAX = 8 << 20
/** How long a pipe that is full is left alone. */
const RETRY_MS = 50

const STDERR = 2

// A pipe without a reader is refused: opening it to wait would keep the daemon from starting.
const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = constants

/** Opens `stderr` or a path; a ConfigError where it cannot be written. */
export const openTrace = (where: string): TraceFile => {
  if (where === 'stderr') return traceOnStderr()
  try {
    return new TraceFile(openSync(where, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0o600))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError(`Cannot write the trace to ${where}: ${code}`)
  }
}

/** stderr is shared with the log, so it stays as it is: a pipe is opened once more, not to block. */
const traceOnStderr = (): TraceFile => {
  const kind = fstatSync(STDERR)
  if (!kind.isFIFO()) return new TraceFile(STDERR, { mayBlock: isSlow(kind) })
  try {
    return new TraceFile(openSync(`/proc/self/fd/${STDERR}`, O_WRONLY | O_NONBLOCK))
  } catch {
    return new TraceFile(STDERR, { mayBlock: true })
  }
}

const isSlow = (kind: Stats): boolean => !kind.isFile()

export class TraceFile {
  readonly #fd: number
  readonly #mayBlock: boolean
  #lines: string[] = []
  /** Of the lines, and of what is being written. */
  #bytes = 0
  #lost = 0
  #isWriting = false

  /** @param mayBlock whether a write may wait for a reader */
  constructor(fd: number, { mayBlock = false } = {}) {
    this.#fd = fd
    this.#mayBlock = mayBlock
  }

  /** Takes a line with its end; never waits, and never throws. */
  write(line: string): void {
    const size = Buffer.byteLength(line)
    if (this.#bytes + size > PENDING_MAX) {
      this.#lost += 1
      return
    }
    if (this.#lost > 0) this.#push(`${this.#lost} lines of the trace are lost\n`)
    this.#lost = 0
    this.#push(line)
    if (!this.#isWriting) this.#next()
  }

  /** Writes what is in memory at once, for an end that cannot wait, where that blocks nothing. */
  flush(): void {
    if (this.#mayBlock || this.#lines.length === 0) return
    try {
      writeSync(this.#fd, this.#lines.join(''))
    } catch {
      // There is no room, or no reader.
    }
    this.#lines = []
  }

  #push(line: string): void {
    this.#lines.push(line)
    this.#bytes += Buffer.byteLength(line)
  }

  #next(): void {
    this.#isWriting = this.#lines.length > 0
    if (!this.#isWriting) return
    const bytes = Buffer.from(this.#lines.join(''))
    this.#lines = []
    this.#put(bytes)
  }

  #put(bytes: Buffer): void {
    write(this.#fd, bytes, (error, count) => {
      if (error?.code === 'EAGAIN') {
        setTimeout(() => this.#put(bytes), RETRY_MS).unref()
        return
      }
      // What a full disk does not take is lost, as if there had been no room in memory.
      if (error) this.#lost += bytes.toString().split('\n').length - 1
      this.#bytes -= error ? bytes.length : count
      if (!error && count < bytes.length) this.#put(bytes.subarray(count))
      else this.#next()
    })
  }
}
