/**
 * Deadlines of clients. Time in which this process did not come to read its sockets is not the
 * client's: a deadline that comes due while the event loop was late is put off by as much, and the
 * sockets are read once more before it counts.
 */

/** A loop that is later than this was held up; less is what timers do. */
const LATE_MS = 100

/** Sockets are read between one turn and the next. */
const TURNS = 2

export class Deadline {
  readonly #onDue: () => void
  #due = 0
  #timer: NodeJS.Timeout | undefined
  #turn: NodeJS.Immediate | undefined

  /** `onDue` is called in `ms`, unless the deadline is cancelled before. It keeps no process alive. */
  constructor(ms: number, onDue: () => void) {
    this.#onDue = onDue
    this.#wait(ms)
  }

  /** Milliseconds until it is due. */
  get remainingMs(): number {
    return Math.max(0, Math.ceil(this.#due - performance.now()))
  }

  /** It begins anew. */
  renew(ms: number): void {
    this.cancel()
    this.#wait(ms)
  }

  cancel(): void {
    clearTimeout(this.#timer)
    clearImmediate(this.#turn)
  }

  #wait(ms: number): void {
    this.#due = performance.now() + ms
    this.#timer = setTimeout(() => {
      const late = performance.now() - this.#due
      if (late > LATE_MS) this.#wait(late)
      else this.#readSockets(TURNS)
    }, ms)
    this.#timer.unref()
  }

  #readSockets(turns: number): void {
    if (turns === 0) {
      this.#onDue()
      return
    }
    this.#turn = setImmediate(() => this.#readSockets(turns - 1))
  }
}
