/**
 * A look at the host that takes a while, for callers that come at any time: one runs at a time, and each
 * caller gets one that began after it asked, so that what it has just changed is seen.
 */
export class OneLook<Found> {
  readonly #look: () => Promise<Found>
  #running: Promise<Found> | undefined
  /** Begins when the running one has ended; shared by all that came meanwhile. */
  #next: Promise<Found> | undefined

  constructor(look: () => Promise<Found>) {
    this.#look = look
  }

  take(): Promise<Found> {
    if (this.#running === undefined) return this.#start()
    const then = () => {
      this.#next = undefined
      return this.#running ?? this.#start()
    }
    this.#next ??= this.#running.then(then, then)
    return this.#next
  }

  #start(): Promise<Found> {
    const running = this.#look().finally(() => {
      this.#running = undefined
    })
    this.#running = running
    return running
  }
}
