/** The lease of a client on another host: a time that begins anew with each sign of life. */
import type { Lease } from '../../domain/identity/clients.ts'
import { Deadline } from '../../os/deadline.ts'

export class TimedLease implements Lease {
  readonly #ms: number
  readonly #expired: () => void
  #deadline: Deadline | undefined
  /** When it runs out, if the event loop is never late. */
  #runsOut = 0
  /** Pieces of work that the daemon does for the client; the lease runs while there are none. */
  #holds = 0
  #isEnded = false

  /** `expired` is called once, unless the lease is ended before. */
  constructor(ms: number, expired: () => void) {
    this.#ms = ms
    this.#expired = expired
    this.renew()
  }

  get remainingMs(): number {
    if (this.#holds > 0) return this.#ms
    return Math.max(0, Math.ceil(this.#runsOut - performance.now()))
  }

  renew(): void {
    if (this.#isEnded || this.#holds > 0) return
    this.#deadline?.cancel()
    this.#runsOut = performance.now() + this.#ms
    this.#deadline = new Deadline(this.#ms, () => {
      this.end()
      this.#expired()
    })
  }

  hold(): () => void {
    this.#holds += 1
    this.#deadline?.cancel()
    return () => {
      this.#holds -= 1
      this.renew()
    }
  }

  end(): void {
    this.#isEnded = true
    this.#deadline?.cancel()
  }
}
