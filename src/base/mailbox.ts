/**
 * A queue from producers to one reader. An item with a key joins the waiting item of the same key, so
 * that a slow reader costs no memory; items without a key wait separately, up to a limit.
 */

export interface MailboxOptions<Item> {
  /** Joins two items with the same key into one; without it the later one replaces the earlier. */
  readonly join?: (waiting: Item, added: Item) => Item
  /** Items that may wait; more than that ends the reader with `overflow`. */
  readonly limit?: number
  /** The error for a reader that has fallen behind. */
  readonly overflow?: (waiting: number) => Error
}

export class Mailbox<Item> {
  readonly #options: MailboxOptions<Item>
  readonly #waiting = new Map<unknown, Item>()
  #isOver = false
  #wake = () => {}

  constructor(options: MailboxOptions<Item> = {}) {
    this.#options = options
  }

  /** Add an item; with a key it joins the one that waits under the same key. */
  push(item: Item, key: unknown = Symbol('item')): void {
    const { join, limit = Number.POSITIVE_INFINITY } = this.#options
    const waiting = this.#waiting.get(key)
    if (waiting === undefined && this.#waiting.size >= limit) this.#isOver = true
    else this.#waiting.set(key, waiting !== undefined && join ? join(waiting, item) : item)
    this.#wake()
  }

  /** The items in the order of their keys' arrival, until the signal. One reader at a time. */
  async *read(signal: AbortSignal): AsyncGenerator<Item, void> {
    const onAbort = () => this.#wake()
    signal.addEventListener('abort', onAbort)
    try {
      while (!signal.aborted) {
        if (this.#isOver) throw this.#tooFarBehind()
        const [next] = this.#waiting
        if (next !== undefined) {
          const [key, item] = next
          this.#waiting.delete(key)
          yield item
          continue
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #tooFarBehind(): Error {
    const waiting = this.#waiting.size
    return this.#options.overflow?.(waiting) ?? new Error(`${waiting} items were not read`)
  }
}
