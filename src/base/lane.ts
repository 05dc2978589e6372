/** Operations one after another: in a lane, in a lane for each key, in several lanes at once. */

import { Gate } from './gate.ts'

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

/** Run `operation` alone in all of these lanes. They are taken in the order that is given: always the same. */
export const runInAll = <T>(lanes: readonly Lane[], operation: () => Promise<T>): Promise<T> =>
  lanes.reduceRight<() => Promise<T>>((inner, lane) => () => lane.run(inner), operation)()

/** The same now, or undefined where one is busy. It waits for nothing, so a lane may be held meanwhile. */
export function runIfIdle<T>(
  lanes: readonly Lane[],
  operation: () => Promise<T>,
): Promise<T> | undefined {
  if (lanes.some(({ isBusy }) => isBusy)) return undefined
  const done = new Gate()
  for (const lane of lanes) void lane.run(() => done.opened)
  return operation().finally(() => done.open())
}
