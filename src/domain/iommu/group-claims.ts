/**
 * Groups whose only open file the daemon is about to have: to attach them, or to prove to the kernel
 * that it owns them while it resets a bus. A claim to attach waits for the other claims of the group; a
 * claim to prove waits for nothing, so that no claim is held up by another.
 */

import { Gate } from '../../base/gate.ts'

export interface Claim {
  /** What it is for: `the reset of the bus of 0000:01:00.0`. */
  readonly what: string
  readonly ended: Promise<void>
}

export class GroupClaims {
  readonly #claims = new Map<number, Claim>()

  /** The claim that there is. */
  of(group: number): Claim | undefined {
    return this.#claims.get(group)
  }

  /** Claim groups that are not claimed; answers how to end that. */
  take(groups: readonly number[], what: string): () => void {
    const end = new Gate()
    for (const group of groups) this.#claims.set(group, { what, ended: end.opened })
    return () => {
      for (const group of groups) this.#claims.delete(group)
      end.open()
    }
  }

  /** Run with a group that is not claimed by the time it begins. `wait` waits for the end of a claim. */
  async use<T>(
    group: number,
    what: string,
    operation: () => Promise<T>,
    wait: (claim: Claim) => Promise<void>,
  ): Promise<T> {
    for (let claim = this.of(group); claim !== undefined; claim = this.of(group)) await wait(claim)
    const end = this.take([group], what)
    try {
      return await operation()
    } finally {
      end()
    }
  }
}
