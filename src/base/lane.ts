/**
 * One operation at a time. What runs in a lane starts when everything before it has ended, so
 * "what may happen between these two awaits?" is not a question inside one.
 */
export class Lane {
  #tail: Promise<unknown> = Promise.resolve()
  #operations = 0

  /** Whether an operation is under way or waits. */
  get isBusy(): boolean {
    return this.#operations > 0
  }

  /** Run `operation` after everything that was given before; answers or throws as it does. */
  run<T>(operation: () => Promise<T>): Promise<T> {
    this.#operations += 1
    const result = this.#tail.then(operation).finally(() => {
      this.#operations -= 1
    })
    this.#tail = result.catch(() => undefined)
    return result
  }
}

/** A lane for each key: operations that share no key do not wait for each other. */
export class Lanes<Key> {
  readonly #lanes = new Map<Key, Lane>()

  /** Run `operation` alone among those that share a key with it. */
  async run<T>(keys: readonly Key[], operation: () => Promise<T>): Promise<T> {
    // Everyone takes lanes in one order, so that no two wait for each other.
    const [first, ...rest] = [...new Set(keys)].sort()
    if (first === undefined) return operation()
    const lane = this.#lanes.get(first) ?? new Lane()
    this.#lanes.set(first, lane)
    try {
      return await lane.run(() => this.run(rest, operation))
    } finally {
      if (!lane.isBusy) this.#lanes.delete(first)
    }
  }
}
