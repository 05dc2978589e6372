/** InventoryService: groups, devices, and their drivers. */
import type { Domain } from '../../domain/domain.ts'
import type { DeviceView, GroupView, InventoryEvent } from '../../domain/host/inventory.ts'
import { ownerText } from '../../domain/state/owner.ts'
import type { Device } from '../../proto/vfiod/v1/Device.ts'
import type { DeviceBus } from '../../proto/vfiod/v1/DeviceBus.ts'
import type { Group } from '../../proto/vfiod/v1/Group.ts'
import type { HostUseKind as ProtoHostUseKind } from '../../proto/vfiod/v1/HostUseKind.ts'
import type { InventoryServiceHandlers } from '../../proto/vfiod/v1/InventoryService.ts'
import type { Viability } from '../../proto/vfiod/v1/Viability.ts'
import type { WatchGroupsResponse } from '../../proto/vfiod/v1/WatchGroupsResponse.ts'
import type { HostUseKind } from '../../rules/host-use.ts'
import { noIommuBlocker } from '../../rules/viability.ts'
import type { Handlers } from '../call/call.ts'
import { blockerToProto, conditionsToProto } from './convert.ts'

const BUS: Readonly<Record<DeviceView['bus'], DeviceBus>> = {
  pci: 'DEVICE_BUS_PCI',
  mdev: 'DEVICE_BUS_MDEV',
  other: 'DEVICE_BUS_UNSPECIFIED',
}

const VIABILITY: Readonly<Record<GroupView['viability'], Viability>> = {
  viable: 'VIABILITY_VIABLE',
  'not-viable': 'VIABILITY_NOT_VIABLE',
  'not-bound': 'VIABILITY_NOT_BOUND',
}

const HOST_USE: Readonly<Record<HostUseKind, ProtoHostUseKind>> = {
  mount: 'HOST_USE_KIND_MOUNT',
  swap: 'HOST_USE_KIND_SWAP',
  holder: 'HOST_USE_KIND_HOLDER',
  network: 'HOST_USE_KIND_NETWORK',
  console: 'HOST_USE_KIND_CONSOLE',
  process: 'HOST_USE_KIND_PROCESS',
  'not-seen': 'HOST_USE_KIND_NOT_SEEN',
}

const deviceToProto = (device: DeviceView): Device => ({
  name: device.name,
  bus: BUS[device.bus],
  groupId: device.group,
  driver: device.driver ?? '',
  vendorId: device.pci?.vendor ?? 0,
  deviceId: device.pci?.device ?? 0,
  classCode: device.pci?.class ?? 0,
  mdevType: device.mdevType ?? '',
  spaceId: device.spaceId ?? '',
  conditions: conditionsToProto(device.name, device.conditions),
  busName: device.busName,
  physicalFunction: device.physicalFunction ?? '',
  virtualFunctions: [...device.virtualFunctions],
  resets: [
    ...(device.resets.byItself ? ['RESET_KIND_FUNCTION' as const] : []),
    ...(device.resets.byBus ? ['RESET_KIND_HOT' as const] : []),
  ],
  usedSinceReset: device.lastUser !== undefined,
  lastUser: device.lastUser === undefined ? '' : ownerText(device.lastUser),
  hostUses: (device.hostUses ?? []).map(({ kind, part, found, fix }) => ({
    kind: HOST_USE[kind],
    part,
    found,
    fix,
  })),
})

const groupToProto = (group: GroupView): Group => ({
  groupId: group.group,
  viability: VIABILITY[group.isNoIommu ? 'not-viable' : group.viability],
  blockers: [...(group.isNoIommu ? [noIommuBlocker(group.group)] : []), ...group.blockers].map(
    blockerToProto,
  ),
  devices: group.devices.map(deviceToProto),
  spaceId: group.spaceId ?? '',
  holders: [...group.holders],
})

const eventToProto = (event: InventoryEvent): WatchGroupsResponse => {
  switch (event.kind) {
    case 'group':
      return { group: groupToProto(event.group) }
    case 'removed':
      return { removedGroupId: event.group }
    case 'present-sent':
      return { presentSent: true }
  }
}

/** What lists and single answers show. */
const WHOLE = { hostUses: true } as const

export const inventoryHandlers = ({
  inventory,
  binding,
  virtualFunctions,
}: Domain): Handlers<InventoryServiceHandlers> => ({
  ListGroups: async () => {
    const groups = (await inventory.groups(WHOLE)).map(groupToProto)
    return { groups, whyEmpty: groups.length > 0 ? '' : await inventory.whyEmpty() }
  },

  GetGroup: async ({ groupId }) => ({ group: groupToProto(await inventory.group(groupId, WHOLE)) }),

  ListDevices: async () => ({ devices: (await inventory.devices(WHOLE)).map(deviceToProto) }),

  GetDevice: async ({ name }) => ({ device: deviceToProto(await inventory.device(name, WHOLE)) }),

  BindDevices: async ({ devices, driver, wholeGroup, force }, { client }) => {
    const bound = await binding.bind(client, {
      devices,
      driver: driver || undefined,
      wholeGroup,
      force,
    })
    return { devices: bound.map(deviceToProto) }
  },

  UnbindDevices: async ({ devices, wholeGroup, force }, { client }) => {
    const unbound = await binding.unbind(client, { devices, wholeGroup, force })
    return { devices: unbound.map(deviceToProto) }
  },

  SetVirtualFunctions: async ({ name, count }, { client }) => ({
    device: deviceToProto(await virtualFunctions.set(client, { name, count })),
  }),

  WatchGroups: async function* (_request, { client, signal }) {
    for await (const event of inventory.watch(client, signal)) yield eventToProto(event)
  },
})
