/**
 * Who is served when: calls share one event loop, and an account may have thousands of them under way. So
 * calls of one account begin a few in each turn of the loop, in their order, and those that look through the
 * whole inventory, which takes many steps, run a few at a time. A client with one call waits for no one
 * of its account, and for a few calls of every other one.
 */

/** Calls of one account that begin in a turn. */
const PER_TURN = 2

/** Calls of one account that look through the inventory at the same time. */
const LOOKS = 2

interface Paced {
  begun: number
  readonly waiting: (() => void)[]
}

interface Looking {
  count: number
  readonly waiting: (() => void)[]
}

const NOTHING = (): void => {}

export class Turns {
  /** Accounts that have begun calls in this turn, or have some that wait. */
  readonly #paced = new Map<string, Paced>()
  readonly #looking = new Map<string, Looking>()
  #isScheduled = false

  /** Waits until a call of the account may begin; answers what is to be called when it has ended. */
  async begin(account: string, isLook: boolean): Promise<() => void> {
    await this.#pace(account)
    return isLook ? this.#look(account) : NOTHING
  }

  #pace(account: string): Promise<void> | undefined {
    const paced = this.#paced.get(account) ?? { begun: 0, waiting: [] }
    this.#paced.set(account, paced)
    this.#schedule()
    if (paced.begun < PER_TURN) {
      paced.begun += 1
      return undefined
    }
    return new Promise((resolve) => paced.waiting.push(resolve))
  }

  #schedule(): void {
    if (!this.#isScheduled) setImmediate(() => this.#nextTurn())
    this.#isScheduled = true
  }

  #nextTurn(): void {
    this.#isScheduled = false
    for (const [account, paced] of this.#paced) {
      const begin = paced.waiting.splice(0, PER_TURN)
      paced.begun = begin.length
      if (paced.begun === 0) this.#paced.delete(account)
      for (const each of begin) each()
    }
    if (this.#paced.size > 0) this.#schedule()
  }

  async #look(account: string): Promise<() => void> {
    const looking = this.#looking.get(account) ?? { count: 0, waiting: [] }
    this.#looking.set(account, looking)
    if (looking.count < LOOKS) looking.count += 1
    // The place of the one that ends is handed on.
    else await new Promise<void>((resolve) => looking.waiting.push(resolve))
    return () => {
      const next = looking.waiting.shift()
      if (next !== undefined) return next()
      looking.count -= 1
      if (looking.count === 0) this.#looking.delete(account)
    }
  }
}
