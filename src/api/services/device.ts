/** DeviceService: regions, interrupts, reset, and the device fd itself. */
import type { OpenDevice } from '../../domain/device/device.ts'
import type { IrqEvent } from '../../domain/device/irqs.ts'
import type { Domain } from '../../domain/domain.ts'
import type { DeviceInfo } from '../../proto/vfiod/v1/DeviceInfo.ts'
import type { DeviceServiceHandlers } from '../../proto/vfiod/v1/DeviceService.ts'
import type { IrqIndex } from '../../proto/vfiod/v1/IrqIndex.ts'
import type { Region } from '../../proto/vfiod/v1/Region.ts'
import type { WatchIrqsResponse } from '../../proto/vfiod/v1/WatchIrqsResponse.ts'
import type { Handlers } from '../call/call.ts'
import { ownerToProto, ticketToProto, u64 } from './convert.ts'

/** vfio.h: VFIO_PCI_BAR0_REGION_INDEX and the ones after it, in their order. */
const PCI_REGIONS = ['BAR0', 'BAR1', 'BAR2', 'BAR3', 'BAR4', 'BAR5', 'ROM', 'CONFIG', 'VGA']
/** vfio.h: VFIO_PCI_INTX_IRQ_INDEX and the ones after it, in their order. */
const PCI_IRQS = ['INTX', 'MSI', 'MSIX', 'ERR', 'REQ']

const nameOf = (device: OpenDevice, names: readonly string[], index: number): string =>
  device.flags.isPci ? (names[index] ?? '') : ''

const regionsToProto = (device: OpenDevice): Region[] =>
  device.regions.map((region) => ({
    index: region.index,
    size: String(region.size),
    readable: region.isReadable,
    writable: region.isWritable,
    mappable: region.isMappable,
    name: nameOf(device, PCI_REGIONS, region.index),
    fdOffset: String(region.fdOffset),
  }))

const irqsToProto = (device: OpenDevice): IrqIndex[] =>
  device.irqs.map((irq) => ({
    index: irq.index,
    count: irq.count,
    eventfd: irq.hasEventfd,
    maskable: irq.isMaskable,
    automasked: irq.isAutomasked,
    noResize: irq.isFixedSize,
    name: nameOf(device, PCI_IRQS, irq.index),
  }))

const deviceToProto = (device: OpenDevice): DeviceInfo => ({
  name: device.name,
  spaceId: device.space.id,
  groupId: device.group,
  canReset: device.flags.canReset,
  isPci: device.flags.isPci,
  regions: regionsToProto(device),
  irqs: irqsToProto(device),
  owner: ownerToProto(device.space.owner),
})

const eventToProto = (event: IrqEvent): WatchIrqsResponse =>
  event.kind === 'armed'
    ? { armed: true }
    : { irq: { vector: event.vector, count: String(event.count) } }

export const deviceHandlers = (
  { devices, irqs }: Domain,
  fdSocketPath: string,
): Handlers<DeviceServiceHandlers> => ({
  OpenDevice: async ({ spaceId, name }, { client }) => ({
    device: deviceToProto(await devices.open(client, spaceId, name)),
  }),

  CloseDevice: async ({ name }, { client }) => {
    await devices.close(client, name)
    return {}
  },

  GetDeviceInfo: async ({ name }, { client }) => ({
    device: deviceToProto(devices.get(client, name)),
  }),

  ReadRegion: async ({ name, region, offset, length }, { client }) => ({
    data: await devices.read(client, { name, region, offset: u64('offset', offset), length }),
  }),

  WriteRegion: async ({ name, region, offset, data }, { client }) => {
    await devices.write(client, { name, region, offset: u64('offset', offset), data })
    return {}
  },

  ResetDevice: async ({ name }, { client }) => {
    await devices.reset(client, name)
    return {}
  },

  WatchIrqs: async function* ({ name, index, start, count }, { client, signal }) {
    const events = irqs.watch(client, { name, index, start, count }, signal)
    for await (const event of events) yield eventToProto(event)
  },

  SetIrqEventfds: async ({ name, index, start, count }, { client }) => {
    const ticket = irqs.setEventfds(client, { name, index, start, count })
    return { ticket: ticketToProto(ticket, fdSocketPath) }
  },

  DisableIrqs: async ({ name, index }, { client }) => {
    await irqs.disable(client, name, index)
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
