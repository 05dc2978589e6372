/**
 * The trackings, by address space. A tracking follows its space and its devices by their hooks, and
 * ends when the last group is removed or the space is released.
 */

import type { Kernel } from '../../kernel/port.ts'
import type { AddressSpace, SpaceHooks } from '../space/space.ts'
import type { Change } from '../state/changes.ts'
import type { State } from '../state/state.ts'
import { requireTrackable, trackingStopped } from './request.ts'
import { syncBeforeClose } from './sync.ts'
import type { Tracking } from './tracking.ts'

interface Attached {
  readonly tracking: Tracking
  /** Removes every hook. */
  readonly unhook: () => void
}

export class Trackings {
  readonly #kernel: Kernel
  readonly #state: State
  /** By the id of the space. */
  readonly #attached = new Map<string, Attached>()

  constructor(kernel: Kernel, state: State) {
    this.#kernel = kernel
    this.#state = state
    state.listen((change) => this.#follow(change))
  }

  get(space: AddressSpace): Tracking | undefined {
    return this.#attached.get(space.id)?.tracking
  }

  /** The tracking of a space, and still the same one if `same` is given; or TRACKING_STOPPED. */
  require(space: AddressSpace, same?: Tracking): Tracking {
    const present = this.get(space)
    if (present !== undefined && present === (same ?? present)) return present
    throw trackingStopped(space)
  }

  /** Follow the space: the sources of the tracking have been started. */
  attach(space: AddressSpace, tracking: Tracking): void {
    const hooks: SpaceHooks = {
      onMapping: (piece) => {
        if (tracking.isIommu) requireTrackable('map', space, piece)
      },
      onDetached: () => this.detach(space),
    }
    const removals = [...tracking.logs.values()].map((log) => {
      const onClosing = () =>
        syncBeforeClose({ kernel: this.#kernel, state: this.#state, space, tracking }, log)
      const deviceHooks = { onClosing }
      log.device.hooks.add(deviceHooks)
      return () => log.device.hooks.delete(deviceHooks)
    })
    space.hooks.add(hooks)
    const unhook = () => {
      space.hooks.delete(hooks)
      for (const remove of removals) remove()
    }
    this.#attached.set(space.id, { tracking, unhook })
    const devices = [...tracking.logs.values()].map(({ device }) => device.name)
    const { isIommu } = tracking
    const record = { spaceId: space.id, isIommu, devices }
    this.#state.apply({ kind: 'tracking-started', tracking: record })
  }

  /** Stop following the space; answers its former tracking. */
  detach(space: AddressSpace): Tracking | undefined {
    const attached = this.#attached.get(space.id)
    this.#attached.delete(space.id)
    if (attached === undefined) return undefined
    attached.unhook()
    this.#state.apply({ kind: 'tracking-stopped', spaceId: space.id })
    return attached.tracking
  }

  #follow(change: Change): void {
    if (change.kind === 'unmapped') {
      const tracking = this.#attached.get(change.spaceId)?.tracking
      // Writes through a mapping that is gone no longer matter.
      if (tracking !== undefined) for (const mapping of change.mappings) tracking.forget(mapping)
    }
    if (change.kind === 'adopted') {
      for (const id of change.spaceIds) this.#attached.get(id)?.tracking.handOn()
    }
  }
}
