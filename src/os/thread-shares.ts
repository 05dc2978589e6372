/**
 * The threads for calls that sleep, shared out. Such a call has a thread for as long as it sleeps, and
 * that may be for as long as a client likes: it has terabytes pinned, or a device that does not answer. So
 * the calls that are made for one account have a part of the threads at most, those of all accounts leave
 * some to the daemon itself, and what finds no thread waits until a call of its account has ended.
 */

import { AsyncLocalStorage } from 'node:async_hooks'

const current = new AsyncLocalStorage<string>()

/** Calls that are made in the operation, and in whatever it awaits, are those of the account. */
export const onAccountOf = <T>(account: string, operation: () => T): T =>
  current.run(account, operation)

/** Whose call is under way; undefined for the daemon's own. */
export const currentAccount = (): string | undefined => current.getStore()

/** How long a call sleeps: `endless` where it waits for another call, as a read of a device that has nothing does. */
export type Sleep = 'bounded' | 'endless'

interface Begun {
  readonly sleep: Sleep
  readonly start: () => void
}

interface Share {
  running: number
  endless: number
  readonly waiting: Begun[]
}

export class ThreadShares {
  readonly #ofOne: number
  readonly #ofAll: number
  readonly #endless: number
  readonly #shares = new Map<string, Share>()
  #running = 0

  /** A quarter of the threads for an account, and three quarters for all of them. */
  constructor(threads: number) {
    const quarter = Math.floor(threads / 4)
    this.#ofOne = Math.max(2, quarter)
    this.#ofAll = Math.max(2, threads - Math.max(1, quarter))
    // Calls that end the wait of such a call have a thread all the same.
    this.#endless = Math.max(1, Math.floor(this.#ofOne / 2))
  }

  /** Starts the call of an account now or later; `end` is to be called when it has answered. */
  begin(account: string, call: Begun): void {
    const share = this.#shares.get(account) ?? { running: 0, endless: 0, waiting: [] }
    this.#shares.set(account, share)
    if (this.#running < this.#ofAll && this.#hasRoom(share, call)) this.#start(share, call)
    else share.waiting.push(call)
  }

  end(account: string, sleep: Sleep): void {
    const share = this.#shares.get(account) as Share
    share.running -= 1
    if (sleep === 'endless') share.endless -= 1
    this.#running -= 1
    if (share.running === 0 && share.waiting.length === 0) this.#shares.delete(account)
    this.#startNext()
  }

  #hasRoom(share: Share, { sleep }: Begun): boolean {
    return share.running < this.#ofOne && (sleep === 'bounded' || share.endless < this.#endless)
  }

  #start(share: Share, { sleep, start }: Begun): void {
    share.running += 1
    if (sleep === 'endless') share.endless += 1
    this.#running += 1
    start()
  }

  /** One account after another, each with the first of its calls that may have a thread. */
  #startNext(): void {
    for (const [account, share] of this.#shares) {
      if (this.#running >= this.#ofAll) return
      const next = share.waiting.findIndex((call) => this.#hasRoom(share, call))
      const [call] = next < 0 ? [] : share.waiting.splice(next, 1)
      if (call === undefined) continue
      // It is asked last the next time.
      this.#shares.delete(account)
      this.#shares.set(account, share)
      this.#start(share, call)
    }
  }
}
