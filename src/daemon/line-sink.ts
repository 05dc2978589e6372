/**
 * Where lines go: stderr, or a file. Asynchronous, because a pipe whose reader has stopped would
 * block the event loop. What waits in memory is bounded, and half of it is kept for the lines that
 * must not be lost to a flood of the others.
 */
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { pino } from 'pino'

/** Bytes that wait for a reader; beyond them lines are dropped. */
const PENDING_MAX = 16 << 20
/** The log is for its owner, as the objects in it are. */
const FILE_MODE = 0o600

export class LineSink {
  readonly #destination: ReturnType<typeof pino.destination>
  #pending = 0
  #dropped = 0

  /** Throws where the file cannot be opened. */
  constructor(to: { readonly fd: number } | { readonly file: string }) {
    // pino opens a file later, and says what is wrong with it where it is not heard.
    if ('file' in to) closeSync(openSync(to.file, 'a', FILE_MODE))
    this.#destination = pino.destination({
      ...('fd' in to ? { fd: to.fd } : { dest: to.file, append: true, mode: FILE_MODE }),
      sync: false,
      maxLength: PENDING_MAX,
    })
    this.#destination.on('write', (bytes: number) => {
      this.#pending = Math.max(0, this.#pending - bytes)
    })
    // A file system that is full, a reader that has gone: there is no place to say so.
    this.#destination.on('error', () => {})
  }

  /** Whether every line is written. */
  get isIdle(): boolean {
    return this.#pending === 0
  }

  /** A line that is dropped when too many wait; the next that is not says how many were. */
  write(line: string): void {
    if (this.#pending > PENDING_MAX / 2) {
      this.#dropped += 1
      return
    }
    if (this.#dropped > 0) {
      const dropped = this.#dropped
      this.#dropped = 0
      this.writeFirst(`${JSON.stringify({ level: 'warn', dropped, msg: 'lines dropped' })}\n`)
    }
    this.writeFirst(line)
  }

  /** A line that has the other half of the room as well. */
  writeFirst(line: string): void {
    this.#pending += Buffer.byteLength(line)
    this.#destination.write(line)
  }

  reopen(): void {
    this.#destination.reopen()
  }

  async close(): Promise<void> {
    // An error, such as a reader that has gone, ends it as well.
    const closed = once(this.#destination, 'close').catch(() => undefined)
    this.#destination.end()
    await closed
  }

  flush(): void {
    try {
      this.#destination.flushSync()
    } catch {
      // The reader is gone: no process is left to tell.
    }
  }
}
