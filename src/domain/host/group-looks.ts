/**
 * Looks at the groups of the host, for all who watch them: one look serves every watcher, however many
 * there are. sysfs has no change notification for groups, so there is a look every `everyMs`, and one at
 * once after a change that the daemon made itself.
 */

import type { Change } from '../state/changes.ts'
import type { State } from '../state/state.ts'

/** The changes after which a group or a device may look different. */
const CHANGES_OF_GROUPS: ReadonlySet<Change['kind']> = new Set([
  'member-set',
  'member-removed',
  'device-opened',
  'device-closed',
  'devices-reset',
  'condition-set',
  'condition-cleared',
  'drivers-changed',
])

/** What a look found, or why it found nothing. */
export type Look<View> = { readonly views: readonly View[] } | { readonly error: unknown }

export class GroupLooks<View> {
  readonly #views: () => Promise<readonly View[]>
  readonly #state: Pick<State, 'listen'>
  readonly #everyMs: number
  readonly #watchers = new Set<(look: Look<View>) => void>()
  #stop = (): void => undefined
  #isLooking = false
  #isStale = false

  constructor(parts: {
    readonly views: () => Promise<readonly View[]>
    readonly state: Pick<State, 'listen'>
    readonly everyMs: number
  }) {
    this.#views = parts.views
    this.#state = parts.state
    this.#everyMs = parts.everyMs
  }

  /** Calls back with each look from now on; answers how to end that. */
  join(watcher: (look: Look<View>) => void): () => void {
    if (this.#watchers.size === 0) this.#start()
    this.#watchers.add(watcher)
    return () => {
      if (this.#watchers.delete(watcher) && this.#watchers.size === 0) this.#stop()
    }
  }

  #start(): void {
    const look = () => void this.#look()
    const timer = setInterval(look, this.#everyMs)
    const unlisten = this.#state.listen((change) => {
      if (CHANGES_OF_GROUPS.has(change.kind)) look()
    })
    this.#stop = () => {
      clearInterval(timer)
      unlisten()
    }
  }

  /** A change during a look may have come too late for it: then there is another. */
  async #look(): Promise<void> {
    this.#isStale = true
    if (this.#isLooking) return
    this.#isLooking = true
    while (this.#isStale && this.#watchers.size > 0) {
      this.#isStale = false
      const look = await this.#views().then(
        (views) => ({ views }),
        (error: unknown) => ({ error }),
      )
      for (const watcher of this.#watchers) watcher(look)
    }
    this.#isLooking = false
  }
}
