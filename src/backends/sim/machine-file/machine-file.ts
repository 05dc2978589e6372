/**
 * The file that describes a simulated machine: TOML, checked before anything is built from it.
 * docs/machine-file.md describes every key and is held equal to this.
 */
import { readFileSync } from 'node:fs'
import { parse } from 'smol-toml'
import { z } from 'zod'
import { defaultMachine, MSI_WINDOW } from '../spec/default-machine.ts'
import {
  type GroupSpec,
  type MachineSpec,
  MDEV_KINDS,
  RESERVED_KINDS,
  TIMES,
  VFIO_CONTAINERS,
} from '../spec/machine-spec.ts'
import { virtualFunctions } from '../spec/sriov.ts'
import { isAtLeast } from '../spec/version.ts'
import { faultTable } from './faults.ts'
import { type Contradiction, functionContradictions, pciFunction } from './functions.ts'
import { hostContradictions, hostTable } from './host.ts'
import { type IommuTable, iommuTable } from './iommu.ts'
import { u64, unsigned } from './numbers.ts'

const reserved = z.strictObject({ start: u64, last: u64, kind: z.enum(RESERVED_KINDS) })

const group = z.strictObject({
  id: z.int().nonnegative(),
  reserved: z.array(reserved).optional(),
  iommu: iommuTable.optional(),
  no_iommu: z.boolean().optional(),
})
type GroupTable = z.infer<typeof group>

const mdevType = z.strictObject({
  id: z.string().min(1),
  name: z.string(),
  ports: z.union([z.literal(1), z.literal(2)]),
})

const mdevParent = z
  .strictObject({
    name: z.string().min(1),
    kind: z.enum(MDEV_KINDS).default('mtty'),
    pool_ports: z.int().nonnegative().default(24),
    types: z.array(mdevType).min(1),
  })
  .transform(({ pool_ports, ...rest }) => ({ ...rest, poolPorts: pool_ports }))

const mdev = z.strictObject({ uuid: z.guid(), parent: z.string(), type: z.string() })

const dynamicId = z.strictObject({
  driver: z.string().min(1),
  vendor: unsigned(16),
  device: unsigned(16),
})

const platformDevice = z.strictObject({
  name: z.string().regex(/^[^/]+$/, 'a name such as "MSFT0201:00" is needed'),
  group: z.int().nonnegative(),
  driver: z.string().min(1).optional(),
})

const version = z.string().regex(/^\d+\.\d+(\.\d+)?$/, 'a version such as "6.12" is needed')

const machineSchema = z
  .strictObject({
    extends: z.literal('default').optional(),
    kernel_version: version.default(defaultMachine.kernelVersion),
    memory_bytes: u64.default(defaultMachine.memoryBytes),
    memlock_bytes: z.union([z.literal('unlimited').transform(() => null), u64]).default(null),
    vfio_container: z.enum(VFIO_CONTAINERS).default('type1'),
    dma_entry_limit: unsigned(32).default(defaultMachine.dmaEntryLimit),
    allow_unsafe_interrupts: z.boolean().default(false),
    enable_unsafe_noiommu_mode: z.boolean().default(false),
    enable_sriov: z.boolean().default(false),
    drivers: z.array(z.string()).default([...defaultMachine.drivers]),
    time: z.enum(TIMES).default('auto'),
    iommu: iommuTable.default({ spec: defaultMachine.iommu, reserved: [MSI_WINDOW] }),
    host: hostTable.optional(),
    groups: z.array(group).default([]),
    functions: z.array(pciFunction).default([]),
    dynamic_ids: z.array(dynamicId).default([]),
    platform_devices: z.array(platformDevice).default([]),
    mdev_parents: z.array(mdevParent).default([]),
    mdevs: z.array(mdev).default([]),
    faults: z.array(faultTable).default([]),
  })
  .transform((file): MachineSpec => {
    const base = file.extends === 'default' ? defaultMachine : NO_DEVICES
    const inherited = base.groups.map((group) => inheritedGroup(group, file.iommu))
    const described = extended(file.groups, inherited, 'id')
    const functions = extended(file.functions, base.functions, 'address')
    const members = functions.flatMap((fn) => [fn, ...virtualFunctions(fn)])
    return {
      kernelVersion: file.kernel_version,
      memoryBytes: file.memory_bytes,
      memlockBytes: file.memlock_bytes,
      vfioContainer: file.vfio_container,
      dmaEntryLimit: file.dma_entry_limit,
      allowsUnsafeInterrupts: file.allow_unsafe_interrupts,
      enablesNoIommu: file.enable_unsafe_noiommu_mode,
      enablesSriov: file.enable_sriov,
      drivers: file.drivers,
      time: file.time,
      iommu: file.iommu.spec,
      groups: [
        ...described,
        ...impliedGroups(described, [...members, ...file.platform_devices]),
      ].map((group) => groupOf(group, file.iommu)),
      functions,
      ...(file.host && { host: file.host }),
      dynamicIds: file.dynamic_ids,
      platformDevices: file.platform_devices,
      mdevParents: extended(file.mdev_parents, base.mdevParents, 'name'),
      mdevs: extended(file.mdevs, base.mdevs, 'uuid'),
      faults: file.faults,
    }
  })
  .superRefine((machine, context) => {
    for (const { path, message } of contradictions(machine))
      context.addIssue({ code: 'custom', path, message })
  })

/** What a file without `extends` adds to. */
const NO_DEVICES: Pick<MachineSpec, 'groups' | 'functions' | 'mdevParents' | 'mdevs'> = {
  groups: [],
  functions: [],
  mdevParents: [],
  mdevs: [],
}

/** The entries of the file, and those of the base whose key none of them has. */
const extended = <Entry>(
  own: readonly Entry[],
  base: readonly Entry[],
  key: keyof Entry,
): readonly Entry[] => [
  ...own,
  ...base.filter((entry) => !own.some((other) => other[key] === entry[key])),
]

/** What firmware reserves stays; what the IOMMU keeps is that of the file's. */
const inheritedGroup = (
  { id, reserved }: GroupSpec,
  { reserved: kept }: IommuTable,
): GroupTable => ({
  id,
  reserved: [...reserved.filter(({ kind }) => kind !== 'msi'), ...kept],
})

/** Reserved is what it says, or else what its IOMMU keeps. */
const groupOf = (
  { id, reserved: own, iommu, no_iommu }: GroupTable,
  machines: IommuTable,
): GroupSpec =>
  no_iommu
    ? { id, reserved: own ?? [], isNoIommu: true }
    : {
        id,
        reserved: own ?? (iommu ?? machines).reserved,
        ...(iommu && { iommu: iommu.spec }),
      }

/** A group that only its members name is an ordinary one. */
const impliedGroups = (
  groups: readonly GroupTable[],
  members: readonly { readonly group: number }[],
): GroupTable[] => {
  const known = new Set(groups.map(({ id }) => id))
  const named = new Set(members.map(({ group }) => group).filter((id) => !known.has(id)))
  return [...named].map((id) => ({ id }))
}

/** What each entry alone cannot get wrong. */
const contradictions = ({
  kernelVersion,
  vfioContainer,
  drivers,
  groups,
  functions,
  host,
  mdevParents,
  mdevs,
  dynamicIds = [],
  platformDevices = [],
}: MachineSpec): Contradiction[] => [
  ...(vfioContainer === 'iommufd' && !isAtLeast(kernelVersion, '6.2')
    ? [{ path: ['vfio_container'], message: `Linux ${kernelVersion} has no iommufd; 6.2 has it` }]
    : []),
  ...groups.flatMap(({ id, isNoIommu, reserved }, index) => {
    if (!isNoIommu) return []
    const path = ['groups', index, 'no_iommu']
    const members = [
      ...functions.flatMap((fn) => [fn, ...virtualFunctions(fn)]),
      ...platformDevices,
    ]
    const isShared = members.filter(({ group }) => group === id).length > 1
    return [
      ...(isShared ? [{ path, message: 'vfio makes such a group for each function alone' }] : []),
      ...(reserved.length > 0 ? [{ path, message: 'no IOMMU reserves anything of it' }] : []),
    ]
  }),
  ...repeated(
    'groups',
    'id',
    groups.map(({ id }) => id),
  ),
  ...repeated(
    'functions',
    'address',
    functions.map(({ address }) => address),
  ),
  ...repeated(
    'mdevs',
    'uuid',
    mdevs.map(({ uuid }) => uuid),
  ),
  ...repeated(
    'platform_devices',
    'name',
    platformDevices.map(({ name }) => name),
  ),
  ...dynamicIds.flatMap(({ driver }, index) =>
    drivers.includes(driver)
      ? []
      : [
          {
            path: ['dynamic_ids', index, 'driver'],
            message: `"${driver}" is not among the drivers`,
          },
        ],
  ),
  ...(host ? hostContradictions(host, functions) : []),
  ...functions.flatMap((fn, index) => functionContradictions(fn, { index, functions, drivers })),
  ...mdevs.flatMap(({ parent: name, type }, index) => {
    const parent = mdevParents.find((candidate) => candidate.name === name)
    if (!parent)
      return [{ path: ['mdevs', index, 'parent'], message: `there is no parent "${name}"` }]
    const isKnown = parent.types.some(({ id }) => id === type)
    const message = `"${name}" has no type "${type}"`
    return isKnown ? [] : [{ path: ['mdevs', index, 'type'], message }]
  }),
]

const repeated = (
  table: string,
  key: string,
  values: readonly (string | number)[],
): Contradiction[] =>
  values.flatMap((value, index) =>
    values.indexOf(value) === index
      ? []
      : [{ path: [table, index, key], message: `${value} is described twice` }],
  )

/** A machine file that cannot be used: for people, without a stack. */
export class MachineFileError extends Error {
  override readonly name = 'MachineFileError'
}

/** The machine that a file describes, or a MachineFileError that names the line or the field. */
export const loadMachineFile = (path: string): MachineSpec => {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new MachineFileError(`Cannot read ${path}: ${(error as NodeJS.ErrnoException).code}`)
  }
  return parseMachine(text, path)
}

export const parseMachine = (text: string, path: string): MachineSpec => {
  let table: unknown
  try {
    table = parse(text, { integersAsBigInt: 'asNeeded' })
  } catch (error) {
    // The message of smol-toml shows the line and where in it.
    throw new MachineFileError(`Cannot read ${path}: ${(error as Error).message}`)
  }
  const parsed = machineSchema.safeParse(table)
  if (!parsed.success)
    throw new MachineFileError(
      `Cannot use the machine of ${path}:\n${z.prettifyError(parsed.error)}`,
    )
  return parsed.data
}
