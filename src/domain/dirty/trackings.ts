/**
 * Which address space is tracked. The tracking follows what happens to its space and its devices by
 * their hooks, and ends when the last group leaves or the space is released.
 */

import type { Kernel } from '../../kernel/port.ts'
import type { AddressSpace, SpaceHooks } from '../space/space.ts'
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
  readonly #attached = new Map<AddressSpace, Attached>()

  constructor(kernel: Kernel) {
    this.#kernel = kernel
  }

  get(space: AddressSpace): Tracking | undefined {
    return this.#attached.get(space)?.tracking
  }

  /** The tracking of a space, still that one where one is named; or TRACKING_STOPPED. */
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
      // Writes through a mapping that is gone no longer matter.
      onUnmapped: (mapping) => tracking.forget(mapping),
      onHandedOver: () => tracking.handOn(),
      onDetached: () => this.detach(space),
    }
    const removals = [...tracking.logs.values()].map((log) => {
      const onClosing = () => syncBeforeClose({ kernel: this.#kernel, space, tracking }, log)
      const deviceHooks = { onClosing }
      log.device.hooks.add(deviceHooks)
      return () => log.device.hooks.delete(deviceHooks)
    })
    space.hooks.add(hooks)
    const unhook = () => {
      space.hooks.delete(hooks)
      for (const remove of removals) remove()
    }
    this.#attached.set(space, { tracking, unhook })
  }

  /** Follow it no longer; answers the tracking there was. */
  detach(space: AddressSpace): Tracking | undefined {
    const attached = this.#attached.get(space)
    this.#attached.delete(space)
    attached?.unhook()
    return attached?.tracking
  }
}
