/**
 * The regions of open devices that are mapped for the DMA of their peers, and their end: before a
 * device stops decoding, by a reset, a write to its configuration space or its closing, its mappings are
 * removed, and its owner is told. The kernel does not do it: it takes the region from processors only.
 *
 * A mapping is made in the lane of its space, and within that in the lane of the device. So in the lane
 * of the device `isInUse` is true where there is one, and in that of the space all of them are recorded.
 */

import { VfiodError } from '../../base/error.ts'
import { regionFacts } from '../../kernel/device-facts.ts'
import type { Kernel } from '../../kernel/port.ts'
import { judgeRegion } from '../../rules/causes/judge-device.ts'
import type { Client } from '../identity/clients.ts'
import { type RegionItem, type RegionSource, unmapRegionsOf } from '../space/region-mapping.ts'
import type { AddressSpace } from '../space/space.ts'
import type { Change } from '../state/changes.ts'
import { isOfRegion, type MappingRecord } from '../state/records.ts'
import type { State } from '../state/state.ts'
import { notOpen, type OpenDevice } from './device.ts'

/** Why an operation ends the decoding of a device, to follow "because": `it is reset`; or undefined. */
export type DecodingEnd = () => Promise<string | undefined>

export class RegionMappings {
  readonly #kernel: Kernel
  readonly #state: State
  readonly #openDevice: (name: string) => OpenDevice | undefined

  constructor(parts: {
    readonly kernel: Kernel
    readonly state: State
    /** The open device of a name, of any client. */
    readonly openDevice: (name: string) => OpenDevice | undefined
  }) {
    this.#kernel = parts.kernel
    this.#state = parts.state
    this.#openDevice = parts.openDevice
    parts.state.listen((change) => this.#follow(change))
  }

  /** A region of a device, as the source of mappings into the space that it is open in. */
  source(
    client: Client,
    space: AddressSpace,
    device: OpenDevice,
    index: RegionItem['region'],
  ): RegionSource {
    if (device.space !== space) throw openElsewhere(device, space)
    const region = device.region(index)
    return {
      device: device.name,
      region,
      run: (operation) => device.run(client, operation),
      hold: () => device.windows.hold(),
      vaddrIn: (area, offset) => device.windows.vaddrIn(region, area, offset),
      judge: async () => judgeRegion(await regionFacts(this.#kernel, device, index)),
    }
  }

  /**
   * Remove the mappings of a device, and tell its owner why, unless it ends the space itself. Runs in the
   * lane of the space.
   */
  async remove(device: OpenDevice, why?: string): Promise<number> {
    const { space, name, windows } = device
    if (!windows.isInUse) return 0
    const before = space.mappings.size
    try {
      return await unmapRegionsOf(this.#state, space, name)
    } finally {
      const mappings = before - space.mappings.size
      const record = this.#state.device(name)
      const { owner } = space
      if (mappings > 0 && record !== undefined && why !== undefined) {
        const change = { device: record, owner, mappings, why }
        this.#state.apply({ kind: 'regions-unmapped', ...change })
      }
    }
  }

  /**
   * Run in the lane of the device, with no mapping of its regions left where the operation ends its
   * decoding. Answers how many were removed. The lane of the space is taken only where there are any.
   */
  async without(
    client: Client,
    device: OpenDevice,
    whyItEnds: DecodingEnd,
    operation: () => Promise<void>,
  ): Promise<number> {
    const why = await device.run(client, async () => {
      const reason = device.windows.isInUse ? await whyItEnds() : undefined
      if (reason === undefined) await operation()
      return reason
    })
    if (why === undefined) return 0
    return device.space.lane.run(async () => {
      if (device.isClosed) throw notOpen(device.name)
      device.requireOwner(client)
      const removed = await this.remove(device, why)
      await device.run(client, operation)
      return removed
    })
  }

  #follow(change: Change): void {
    if (change.kind !== 'mapped' && change.kind !== 'unmapped') return
    for (const windows of this.#windowsOf(change.mappings)) {
      if (change.kind === 'mapped') windows.hold()
      else windows.drop()
    }
  }

  *#windowsOf(mappings: readonly MappingRecord[]): Generator<OpenDevice['windows'], void> {
    for (const mapping of mappings) {
      const device = isOfRegion(mapping) ? this.#openDevice(mapping.device) : undefined
      if (device !== undefined) yield device.windows
    }
  }
}

const openElsewhere = ({ name, space: { id } }: OpenDevice, into: AddressSpace): VfiodError =>
  new VfiodError(
    'DEVICE_NOT_OPEN',
    `Cannot map a region of ${name} into "${into.id}": it is open in "${id}"; open it and the devices that are to reach it in one address space`,
    { resource: { type: 'device', name } },
  )
