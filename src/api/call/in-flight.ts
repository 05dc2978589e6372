/**
 * The calls that are under way: so that draining can wait for them, and so that nothing of a client
 * which died in the middle of a call stays behind.
 */
import { VfiodError } from '../../base/error.ts'
import type { Client } from '../../domain/identity/clients.ts'

export interface InFlightCall {
  readonly client: Client
  /** A watch: it goes on until the client or the daemon ends it. */
  readonly isEndless: boolean
  readonly abort: AbortController
}

const draining = (): VfiodError =>
  new VfiodError('DRAINING', 'Cannot serve the call: the daemon is shutting down; reconnect later')

export class InFlightCalls {
  readonly #calls = new Set<InFlightCall>()
  readonly #waiters = new Set<() => void>()
  #isDraining = false

  /** Counts a call in; answers how to count it out. DRAINING when no new ones are taken. */
  enter(call: InFlightCall): () => void {
    if (this.#isDraining) throw draining()
    this.#calls.add(call)
    return () => {
      this.#calls.delete(call)
      for (const look of this.#waiters) look()
    }
  }

  /** Takes no new calls from here on, and ends the watches. */
  drain(): void {
    this.#isDraining = true
    for (const { isEndless, abort } of this.#calls) if (isEndless) abort.abort(draining())
  }

  /** Ends every call that listens to its signal. */
  abortAll(): void {
    for (const { abort } of this.#calls) abort.abort(draining())
  }

  /** Ends the calls of a client that is gone, or whose lease is; who is still there is told why. */
  abortClient(client: Client, why: string): void {
    const reason = new VfiodError('CANCELLED', `Cannot continue the call: ${why}; start again`)
    for (const call of this.#calls) if (call.client.id === client.id) call.abort.abort(reason)
  }

  /** Resolves once no call is under way, or none of that client. */
  idle(client?: Client): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        for (const call of this.#calls)
          if (client === undefined || call.client.id === client.id) return
        this.#waiters.delete(look)
        resolve()
      }
      this.#waiters.add(look)
      look()
    })
  }
}
