/**
 * What devices do on their own, in time. Poked: only when `step` is called, so a test decides what
 * happens between two calls. Auto: soon, by itself, and without keeping the process alive.
 */

const AUTO_MS = 1

export class Pending {
  readonly #isAuto: boolean
  #actions: (() => void)[] = []
  readonly #watches = new Set<() => boolean>()
  #timer: NodeJS.Timeout | undefined

  constructor(time: 'poked' | 'auto') {
    this.#isAuto = time === 'auto'
  }

  /** Happens once, at the next step. */
  add(action: () => void): void {
    this.#actions.push(action)
    this.#wind()
  }

  /** Looks at every step whether something outside has happened; answers how to stop looking. */
  watch(look: () => boolean): () => void {
    this.#watches.add(look)
    this.#wind()
    return () => void this.#watches.delete(look)
  }

  /** Every pending action happens once; those they cause wait for the next step. */
  step(): boolean {
    const actions = this.#actions
    this.#actions = []
    for (const action of actions) action()
    let hasHappened = actions.length > 0
    for (const look of [...this.#watches]) if (look()) hasHappened = true
    return hasHappened
  }

  #wind(): void {
    if (!this.#isAuto || this.#timer !== undefined) return
    if (this.#actions.length === 0 && this.#watches.size === 0) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.step()
      this.#wind()
    }, AUTO_MS)
    this.#timer.unref()
  }
}
