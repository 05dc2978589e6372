/**
 * What every RPC answers to each kind of bad request (bad-requests.ts): a reason, OK where the
 * request does no harm, and for a batch the reasons of its items. A new RPC needs a row.
 *
 * "foreign ids" come from somebody who owns none of them, the "own ids" from their owner.
 */

type Outcomes = Readonly<Record<string, string>>

const HARMLESS: Outcomes = { empty: 'OK' }

/** A list in pages: every text is a token, and every number a size. */
const PAGED: Outcomes = {
  ...HARMLESS,
  ...Object.fromEntries(
    [
      ...['extreme', 'foreign ids', 'unknown ids'],
      ...['own ids, huge numbers', 'own ids, unaligned numbers'],
    ].map((name) => [name, 'OK']),
  ),
}

const noSuch = (reason: string): Outcomes => ({
  empty: reason,
  'unknown ids': reason,
  extreme: reason,
})

/** Of an open device. */
const OF_DEVICE: Outcomes = { ...noSuch('DEVICE_NOT_OPEN'), 'foreign ids': 'NOT_MM_OWNER' }

const OF_IRQS: Outcomes = {
  ...OF_DEVICE,
  'own ids, huge numbers': 'NO_SUCH_IRQ',
  'own ids, unaligned numbers': 'NO_SUCH_IRQ',
}

/** Of an address space. */
const OF_SPACE: Outcomes = { ...noSuch('NO_SUCH_SPACE'), 'foreign ids': 'NOT_MM_OWNER' }

/** A batch of ranges: together with `all` it is contradictory, empty it is pointless. */
const OF_RANGES: Outcomes = {
  ...OF_SPACE,
  empty: 'BAD_ARGUMENT',
  extreme: 'BAD_ARGUMENT',
  'own ids, huge numbers': 'items: BAD_RANGE',
  'own ids, unaligned numbers': 'items: BAD_RANGE',
  'own ids, oversized': 'BATCH_TOO_LARGE',
}

/** One range, of which nothing can be changed. */
const OF_RESIZING: Outcomes = {
  ...OF_SPACE,
  'own ids, huge numbers': 'BAD_RANGE',
  'own ids, unaligned numbers': 'BAD_RANGE',
}

/** Ids that nobody has may be taken, those of others may not. */
const MAKES: Outcomes = { ...noSuch('OK'), 'foreign ids': 'NOT_MM_OWNER' }

const MOVES_DRIVERS: Outcomes = {
  ...noSuch('NO_SUCH_DEVICE'),
  empty: 'BAD_ARGUMENT',
  'foreign ids': 'DEVICE_IN_USE',
}

export const EXPECTED: Readonly<Record<string, Outcomes>> = {
  'inventory.ListGroups': HARMLESS,
  // There is a group 0, and looking is free.
  'inventory.GetGroup': { ...noSuch('NO_SUCH_GROUP'), empty: 'OK', 'foreign ids': 'OK' },
  'inventory.ListDevices': HARMLESS,
  'inventory.GetDevice': { ...noSuch('NO_SUCH_DEVICE'), 'foreign ids': 'OK' },
  'inventory.BindDevices': MOVES_DRIVERS,
  'inventory.UnbindDevices': MOVES_DRIVERS,
  // Of devices without SR-IOV.
  'inventory.SetVirtualFunctions': {
    ...noSuch('NO_SUCH_DEVICE'),
    'foreign ids': 'UNSUPPORTED',
    'own ids, huge numbers': 'UNSUPPORTED',
    'own ids, unaligned numbers': 'UNSUPPORTED',
  },
  'inventory.WatchGroups': HARMLESS,

  'memory.RegisterMemory': MAKES,
  'memory.AllocateMemory': {
    ...noSuch('BAD_RANGE'),
    extreme: 'BAD_ARGUMENT',
    'foreign ids': 'BAD_RANGE',
    'own ids, huge numbers': 'BAD_RANGE',
    'own ids, unaligned numbers': 'BAD_RANGE',
    'own ids, unknown enum': 'BAD_ARGUMENT',
  },
  'memory.ExportMemory': { ...noSuch('NO_SUCH_MEMORY'), 'foreign ids': 'NOT_MM_OWNER' },
  'memory.ListMemory': PAGED,
  'memory.ReleaseMemory': { ...noSuch('NO_SUCH_MEMORY'), 'foreign ids': 'NOT_MM_OWNER' },

  'addressSpace.CreateSpace': MAKES,
  'addressSpace.GetSpace': { ...noSuch('NO_SUCH_SPACE'), 'foreign ids': 'OK' },
  'addressSpace.ListSpaces': PAGED,
  'addressSpace.DestroySpace': OF_SPACE,
  // An administrator may add groups to the spaces of others; this one is a member already.
  'addressSpace.AddGroup': { ...OF_SPACE, 'foreign ids': 'OK' },
  'addressSpace.RemoveGroup': OF_SPACE,
  'addressSpace.Map': { ...OF_RANGES, 'own ids, unknown enum': 'BAD_ARGUMENT' },
  'addressSpace.Unmap': OF_RANGES,
  'addressSpace.InvalidateVaddr': {
    ...OF_SPACE,
    extreme: 'BAD_ARGUMENT',
    'own ids, huge numbers': 'BAD_RANGE',
    'own ids, unaligned numbers': 'BAD_RANGE',
  },
  'addressSpace.UpdateVaddr': OF_RANGES,
  'addressSpace.ListMappings': {
    ...OF_SPACE,
    'own ids, huge numbers': 'OK',
    'own ids, unaligned numbers': 'OK',
  },

  'device.OpenDevice': OF_SPACE,
  'device.CloseDevice': OF_DEVICE,
  'device.GetDeviceInfo': OF_DEVICE,
  'device.ReadRegion': {
    ...OF_DEVICE,
    'own ids, huge numbers': 'BATCH_TOO_LARGE',
    'own ids, unaligned numbers': 'BATCH_TOO_LARGE',
  },
  'device.WriteRegion': {
    ...OF_DEVICE,
    'own ids, huge numbers': 'OUT_OF_REGION',
    // What a register makes of an unaligned write is its own business.
    'own ids, unaligned numbers': 'OK',
  },
  'device.ResetDevice': OF_DEVICE,
  // Looking is free, at the devices of others too.
  'device.GetHotReset': { ...noSuch('NO_SUCH_DEVICE'), 'foreign ids': 'OK' },
  'device.HotResetDevice': OF_DEVICE,
  'device.WatchIrqs': OF_IRQS,
  'device.SetIrqEventfds': {
    ...OF_IRQS,
    extreme: 'BAD_ARGUMENT',
    'own ids, unknown enum': 'BAD_ARGUMENT',
  },
  'device.DisableIrqs': OF_IRQS,
  'device.SetIrqMask': OF_IRQS,
  'device.TriggerIrq': OF_IRQS,
  'device.ExportFd': OF_DEVICE,

  'dirty.StartTracking': {
    ...OF_SPACE,
    'own ids, huge numbers': 'BAD_RANGE',
    'own ids, unaligned numbers': 'BAD_RANGE',
    'own ids, oversized': 'BATCH_TOO_LARGE',
  },
  'dirty.StopTracking': OF_SPACE,
  'dirty.GetTracking': OF_SPACE,
  'dirty.ReadDirty': {
    ...OF_SPACE,
    'own ids, huge numbers': 'BAD_RANGE',
    'own ids, unaligned numbers': 'BAD_RANGE',
  },
  'dirty.ReadAndUnmap': {
    ...OF_RANGES,
    empty: 'NO_SUCH_SPACE',
    'own ids, huge numbers': 'TRACKING_STOPPED',
    'own ids, unaligned numbers': 'TRACKING_STOPPED',
  },
  'dirty.DemotePages': OF_RESIZING,
  'dirty.PromotePages': OF_RESIZING,

  'migration.GetMigrationCapabilities': OF_DEVICE,
  'migration.GetMigrationState': OF_DEVICE,
  'migration.SetMigrationState': {
    ...OF_DEVICE,
    empty: 'BAD_ARGUMENT',
    extreme: 'BAD_ARGUMENT',
    'own ids, unknown enum': 'BAD_ARGUMENT',
    'own ids, huge numbers': 'BAD_ARGUMENT',
    'own ids, unaligned numbers': 'BAD_ARGUMENT',
  },
  'migration.EstimateSize': OF_DEVICE,
  'migration.GetPrecopyInfo': OF_DEVICE,
  'migration.ReadSession': {
    ...OF_DEVICE,
    'own ids, huge numbers': 'NO_SUCH_SESSION',
    'own ids, unaligned numbers': 'NO_SUCH_SESSION',
  },
  'ownership.WhoAmI': HARMLESS,
  // A deadline of any length is cut to the longest there is.
  'ownership.HandOver': {
    ...noSuch('OK'),
    'foreign ids': 'OK',
    'own ids, huge numbers': 'OK',
    'own ids, unaligned numbers': 'OK',
  },
  'ownership.Adopt': { ...noSuch('BAD_TICKET'), 'foreign ids': 'BAD_TICKET' },
  // A local client has no lease.
  'ownership.KeepAlive': { empty: 'UNSUPPORTED' },
  'ownership.WatchEvents': HARMLESS,

  'admin.ListClients': PAGED,
  'admin.ReleaseClient': { ...noSuch('BAD_ARGUMENT'), 'foreign ids': 'BAD_ARGUMENT' },
  'admin.GetUsage': HARMLESS,
  'admin.GetConfiguration': HARMLESS,
  'admin.Drain': HARMLESS,

  'simulator.InjectFault': {
    ...noSuch('BAD_ARGUMENT'),
    'foreign ids': 'BAD_ARGUMENT',
    'own ids, huge numbers': 'BAD_ARGUMENT',
    'own ids, unaligned numbers': 'BAD_ARGUMENT',
    'own ids, unknown enum': 'BAD_ARGUMENT',
  },
  'simulator.ListFaults': HARMLESS,
  'simulator.ClearFaults': {
    ...noSuch('BAD_ARGUMENT'),
    empty: 'OK',
    'foreign ids': 'BAD_ARGUMENT',
  },
  'simulator.Step': {
    empty: 'OK',
    'unknown ids': 'OK',
    extreme: 'BAD_ARGUMENT',
    'foreign ids': 'OK',
    'own ids, huge numbers': 'BAD_ARGUMENT',
    'own ids, unaligned numbers': 'BAD_ARGUMENT',
  },

  'migration.WriteSession': {
    ...OF_DEVICE,
    'own ids, huge numbers': 'NO_SUCH_SESSION',
    'own ids, unaligned numbers': 'NO_SUCH_SESSION',
  },
}
