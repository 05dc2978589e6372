/** DeviceService: regions, interrupts, reset, and the device fd itself. */
import type { OpenDevice } from '../../domain/device/device.ts'
import type { Devices } from '../../domain/device/devices.ts'
import type { EventfdRequest, IrqEvent } from '../../domain/device/irqs.ts'
import type { AffectedDevice } from '../../domain/device/reset-scope.ts'
import type { Domain } from '../../domain/domain.ts'
import { ownerText } from '../../domain/state/owner.ts'
import type { OpeningReset } from '../../domain/state/records.ts'
import type { AffectedDevice as ProtoAffected } from '../../proto/vfiod/v1/AffectedDevice.ts'
import type { DeviceInfo } from '../../proto/vfiod/v1/DeviceInfo.ts'
import type { DeviceServiceHandlers } from '../../proto/vfiod/v1/DeviceService.ts'
import type { IrqIndex } from '../../proto/vfiod/v1/IrqIndex.ts'
import type { Region } from '../../proto/vfiod/v1/Region.ts'
import type { ResetKind } from '../../proto/vfiod/v1/ResetKind.ts'
import type { WatchIrqsResponse } from '../../proto/vfiod/v1/WatchIrqsResponse.ts'
import type { Handlers } from '../call/call.ts'
import {
  blockerToProto,
  conditionsToProto,
  enumOf,
  ownerToProto,
  ticketToProto,
  u64,
} from './convert.ts'
import type { RegisterWrites } from './register-writes.ts'

/** vfio.h: VFIO_PCI_BAR0_REGION_INDEX and the ones after it, in their order. */
const PCI_REGIONS = ['BAR0', 'BAR1', 'BAR2', 'BAR3', 'BAR4', 'BAR5', 'ROM', 'CONFIG', 'VGA']

const ACTION = {
  IRQ_EVENTFD_ACTION_UNSPECIFIED: 'trigger',
  IRQ_EVENTFD_ACTION_TRIGGER: 'trigger',
  IRQ_EVENTFD_ACTION_UNMASK: 'unmask',
} as const

const regionsToProto = (device: OpenDevice): Region[] =>
  device.regions.map((region) => ({
    index: region.index,
    size: String(region.size),
    readable: region.isReadable,
    writable: region.isWritable,
    mappable: region.isMappable,
    name: device.flags.isPci ? (PCI_REGIONS[region.index] ?? '') : '',
    fdOffset: String(region.fdOffset),
    mappableAreas: region.areas.map(({ offset, length }) => ({
      offset: String(offset),
      length: String(length),
    })),
  }))

const irqsToProto = (device: OpenDevice): IrqIndex[] =>
  device.irqs.map((irq) => ({
    index: irq.index,
    count: irq.count,
    eventfd: irq.hasEventfd,
    maskable: irq.isMaskable,
    automasked: irq.isAutomasked,
    noResize: irq.isFixedSize,
    name: device.armed.nameOf(irq.index),
    allocated: device.armed.allocated(irq.index),
    armed: device.armed.vectors(irq.index),
  }))

const deviceToProto = (device: OpenDevice, devices: Devices): DeviceInfo => ({
  name: device.name,
  spaceId: device.space.id,
  groupId: device.group,
  canReset: device.flags.canReset,
  isPci: device.flags.isPci,
  regions: regionsToProto(device),
  irqs: irqsToProto(device),
  owner: ownerToProto(device.space.owner),
  conditions: conditionsToProto(device.name, devices.conditionsOf(device)),
  reset: openingResetToProto(device.reset),
})

const RESET_KIND: Readonly<Record<OpeningReset['kind'], ResetKind>> = {
  none: 'RESET_KIND_NONE',
  function: 'RESET_KIND_FUNCTION',
  hot: 'RESET_KIND_HOT',
}

const openingResetToProto = ({ kind, why, blockers, lastUser }: OpeningReset) => ({
  kind: RESET_KIND[kind],
  why,
  blockers: blockers.map(blockerToProto),
  lastUser: lastUser === undefined ? '' : ownerText(lastUser),
})

const affectedToProto = (device: AffectedDevice): ProtoAffected => ({
  name: device.name,
  ...(device.group === undefined ? {} : { groupId: device.group }),
  driver: device.driver ?? '',
  bridge: device.isBridge,
  spaceId: device.space?.id ?? '',
  ...(device.space === undefined ? {} : { owner: ownerToProto(device.space.owner) }),
  open: device.isOpen,
  holders: [...device.holders],
})

const eventToProto = (event: IrqEvent): WatchIrqsResponse =>
  event.kind === 'armed'
    ? { armed: true }
    : { irq: { vector: event.vector, count: String(event.count) } }

export const deviceHandlers = (
  { devices, irqs }: Domain,
  fdSocketPath: string,
  writes: RegisterWrites,
): Handlers<DeviceServiceHandlers> => ({
  OpenDevice: async ({ spaceId, name, vfToken, mustReset }, { client }) => {
    const options = { vfToken: vfToken === '' ? undefined : vfToken, mustReset }
    return { device: deviceToProto(await devices.open(client, spaceId, name, options), devices) }
  },

  CloseDevice: async ({ name }, { client }) => ({
    mappingsRemoved: await devices.close(client, name),
  }),

  GetDeviceInfo: async ({ name }, { client }) => ({
    device: deviceToProto(devices.find(client, name), devices),
  }),

  ReadRegion: async ({ name, region, offset, length }, { client }) => ({
    data: await devices.read(client, { name, region, offset: u64('offset', offset), length }),
  }),

  WriteRegion: async ({ name, region, offset, data }, { client }) => {
    const at = { name, region, offset: u64('offset', offset), data }
    const mappingsRemoved = await devices.write(client, at)
    writes.count(client, { name, region, bytes: data.length })
    return { mappingsRemoved }
  },

  ResetDevice: async ({ name }, { client }) => ({
    mappingsRemoved: await devices.reset(client, name),
  }),

  GetHotReset: async ({ name, withOpen }, { client }) => {
    const { devices: hit, blockers } = await devices.hotResets.look(client, name, withOpen)
    return {
      devices: hit.map(affectedToProto),
      possible: blockers.length === 0,
      blockers: blockers.map(blockerToProto),
    }
  },

  HotResetDevice: async ({ name, withOpen }, { client }) => {
    const { devices: hit, removed } = await devices.hotReset(client, name, withOpen)
    return { devices: hit.map(affectedToProto), mappingsRemoved: removed }
  },

  WatchIrqs: async function* ({ name, index, start, count }, { client, signal }) {
    const events = irqs.watch(client, { name, index, start, count }, signal)
    for await (const event of events) yield eventToProto(event)
  },

  SetIrqEventfds: async ({ action, ...vectors }, { client }) => {
    const wanted = enumOf<EventfdRequest['action']>('action', ACTION, action)
    const ticket = irqs.setEventfds(client, { ...vectors, action: wanted })
    return { ticket: ticketToProto(ticket, fdSocketPath) }
  },

  DisableIrqs: async (vectors, { client }) => {
    await irqs.disable(client, vectors)
    return {}
  },

  SetIrqMask: async ({ name, index, vector, masked }, { client }) => {
    await irqs.setMask(client, { name, index, vector, masked })
    return {}
  },

  TriggerIrq: async ({ name, index, vector }, { client }) => {
    await irqs.trigger(client, { name, index, vector })
    return {}
  },

  ExportFd: async ({ name }, { client }) => ({
    ticket: ticketToProto(await devices.exportFd(client, name), fdSocketPath),
  }),
})
