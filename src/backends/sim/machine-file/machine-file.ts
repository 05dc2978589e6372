/**
 * The file that describes a simulated machine: TOML, checked before anything is built from it.
 * docs/machine-file.md describes every key and is held equal to this.
 */
import { readFileSync } from 'node:fs'
import { parse } from 'smol-toml'
import { z } from 'zod'
import {
  defaultMachine,
  EDU_FUNCTION,
  MSI_WINDOW,
  PLAIN_FUNCTION,
  vendorFunction,
} from '../spec/default-machine.ts'
import {
  BAR_KINDS,
  DMA_PATTERNS,
  FUNCTION_KINDS,
  type FunctionKind,
  type FunctionSpec,
  type GroupSpec,
  type MachineSpec,
  MDEV_KINDS,
  RESERVED_KINDS,
  TIMES,
  V1_ORDERS,
  VENDOR_KINDS,
  VFIO_CONTAINERS,
} from '../spec/machine-spec.ts'
import { isAtLeast } from '../spec/version.ts'
import { faultTable } from './faults.ts'
import { type IommuTable, iommuTable } from './iommu.ts'
import { range, u64 } from './numbers.ts'

const unsigned = (bits: number) =>
  z
    .int()
    .nonnegative()
    .max(2 ** bits - 1)
const powerOfTwo = u64.refine((n) => n > 0n && (n & (n - 1n)) === 0n, 'it must be a power of two')

const reserved = z.strictObject({ start: u64, last: u64, kind: z.enum(RESERVED_KINDS) })

const group = z.strictObject({
  id: z.int().nonnegative(),
  reserved: z.array(reserved).optional(),
  iommu: iommuTable.optional(),
})
type GroupTable = z.infer<typeof group>

const bar = z.strictObject({
  index: z.int().min(0).max(5),
  size: powerOfTwo,
  kind: z.enum(BAR_KINDS).default('memory'),
})

const pciAddress = z
  .string()
  .regex(
    /^([0-9a-f]{4}|[1-9a-f][0-9a-f]{4,7}):[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/,
    'an address such as "0000:00:04.0" is needed, or "10000:00:04.0" in a domain above ffff',
  )

const state = z
  .strictObject({
    bytes: u64.refine((n) => n > 0n && n <= 2n ** 32n, 'it must be between 1 and 4 GiB'),
    initial_bytes: u64.default(0n),
    dirty_pages_per_step: unsigned(20).default(0),
  })
  .transform(({ bytes, initial_bytes, dirty_pages_per_step }) => ({
    bytes,
    initialBytes: initial_bytes,
    dirtyPagesPerStep: dirty_pages_per_step,
  }))

const workload = z
  .strictObject({
    range,
    pages_per_step: unsigned(16),
    pattern: z.enum(DMA_PATTERNS).default('sequential'),
  })
  .transform(({ range: where, pages_per_step, pattern }) => ({
    range: where,
    pagesPerStep: pages_per_step,
    pattern,
  }))

const pciFunction = z
  .strictObject({
    address: pciAddress,
    kind: z.enum(FUNCTION_KINDS).default('inert'),
    group: z.int().nonnegative(),
    vendor: unsigned(16).optional(),
    device: unsigned(16).optional(),
    subsystem_vendor: unsigned(16).optional(),
    subsystem_device: unsigned(16).optional(),
    class_code: unsigned(24).optional(),
    revision: unsigned(8).optional(),
    bars: z.array(bar).optional(),
    intx: z.boolean().optional(),
    msi_vectors: z.union([z.literal([0, 1, 2, 4, 8, 16, 32])]).optional(),
    msix_vectors: z.int().min(0).max(2048).optional(),
    host_vectors: z.int().min(0).max(2048).optional(),
    pcie: z.boolean().optional(),
    bridge: z.boolean().optional(),
    reset: z.boolean().optional(),
    plugged: z.boolean().optional(),
    parent: pciAddress.optional(),
    native_driver: z.string().optional(),
    bound_driver: z.string().optional(),
    state: state.optional(),
    workload: workload.optional(),
    v1_order: z.enum(V1_ORDERS).optional(),
  })
  .transform((given): FunctionSpec => {
    const named = {
      vendor: given.vendor,
      device: given.device,
      subsystemVendor: given.subsystem_vendor,
      subsystemDevice: given.subsystem_device,
      classCode: given.class_code,
      revision: given.revision,
      bars: given.bars,
      hasIntx: given.intx,
      msiVectors: given.msi_vectors,
      msixVectors: given.msix_vectors,
      hostVectors: given.host_vectors,
      isPcie: given.pcie,
      isBridge: given.bridge,
      hasReset: given.reset,
      isPlugged: given.plugged,
      parent: given.parent,
      nativeDriver: given.native_driver,
      boundDriver: given.bound_driver,
      state: given.state,
      workload: given.workload,
      v1Order: given.v1_order,
    }
    const { address, kind, group: id } = given
    const base = baseOf(kind)
    const own = Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
    return { ...base, ...own, address, kind, group: id }
  })

const baseOf = (kind: FunctionKind) => {
  const vendor = VENDOR_KINDS.find((name) => name === kind)
  if (vendor) return vendorFunction(vendor)
  return kind === 'edu' ? EDU_FUNCTION : PLAIN_FUNCTION
}

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

const version = z.string().regex(/^\d+\.\d+(\.\d+)?$/, 'a version such as "6.12" is needed')

const machineSchema = z
  .strictObject({
    extends: z.literal('default').optional(),
    kernel_version: version.default(defaultMachine.kernelVersion),
    memlock_bytes: z.union([z.literal('unlimited').transform(() => null), u64]).default(null),
    vfio_container: z.enum(VFIO_CONTAINERS).default('type1'),
    dma_entry_limit: unsigned(32).default(defaultMachine.dmaEntryLimit),
    allow_unsafe_interrupts: z.boolean().default(false),
    drivers: z.array(z.string()).default([...defaultMachine.drivers]),
    time: z.enum(TIMES).default('auto'),
    iommu: iommuTable.default({ spec: defaultMachine.iommu, reserved: [MSI_WINDOW] }),
    groups: z.array(group).default([]),
    functions: z.array(pciFunction).default([]),
    mdev_parents: z.array(mdevParent).default([]),
    mdevs: z.array(mdev).default([]),
    faults: z.array(faultTable).default([]),
  })
  .transform((file): MachineSpec => {
    const base = file.extends === 'default' ? defaultMachine : NO_DEVICES
    const inherited = base.groups.map((group) => inheritedGroup(group, file.iommu))
    const described = extended(file.groups, inherited, 'id')
    const functions = extended(file.functions, base.functions, 'address')
    return {
      kernelVersion: file.kernel_version,
      memlockBytes: file.memlock_bytes,
      vfioContainer: file.vfio_container,
      dmaEntryLimit: file.dma_entry_limit,
      allowsUnsafeInterrupts: file.allow_unsafe_interrupts,
      drivers: file.drivers,
      time: file.time,
      iommu: file.iommu.spec,
      groups: [...described, ...impliedGroups(described, functions)].map((group) =>
        groupOf(group, file.iommu),
      ),
      functions,
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
const groupOf = ({ id, reserved: own, iommu }: GroupTable, machines: IommuTable): GroupSpec => ({
  id,
  reserved: own ?? (iommu ?? machines).reserved,
  ...(iommu && { iommu: iommu.spec }),
})

/** A group that only functions name is an ordinary one. */
const impliedGroups = (
  groups: readonly GroupTable[],
  functions: readonly FunctionSpec[],
): GroupTable[] => {
  const known = new Set(groups.map(({ id }) => id))
  const named = new Set(functions.map((fn) => fn.group).filter((id) => !known.has(id)))
  return [...named].map((id) => ({ id }))
}

interface Contradiction {
  readonly path: (string | number)[]
  readonly message: string
}

/** What each entry alone cannot get wrong. */
const contradictions = ({
  kernelVersion,
  vfioContainer,
  drivers,
  groups,
  functions,
  mdevParents,
  mdevs,
}: MachineSpec): Contradiction[] => [
  ...(vfioContainer === 'iommufd' && !isAtLeast(kernelVersion, '6.2')
    ? [{ path: ['vfio_container'], message: `Linux ${kernelVersion} has no iommufd; 6.2 has it` }]
    : []),
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

const isBehindItself = (address: string, functions: readonly FunctionSpec[]): boolean => {
  const parents = new Map(functions.map((fn) => [fn.address, fn.parent]))
  const seen = new Set<string>()
  let above = parents.get(address)
  while (above !== undefined && !seen.has(above)) {
    seen.add(above)
    above = parents.get(above)
  }
  return seen.has(address)
}

const functionContradictions = (
  fn: FunctionSpec,
  machine: {
    readonly index: number
    readonly functions: readonly FunctionSpec[]
    readonly drivers: readonly string[]
  },
): Contradiction[] => {
  const at = (key: string, message: string): Contradiction => ({
    path: ['functions', machine.index, key],
    message,
  })
  const found: Contradiction[] = []
  if (!VENDOR_KINDS.some((kind) => kind === fn.kind))
    for (const [key, value] of Object.entries({
      state: fn.state,
      workload: fn.workload,
      v1_order: fn.v1Order,
    }))
      if (value !== undefined) found.push(at(key, `a function of kind "${fn.kind}" has none`))
  const { boundDriver, nativeDriver, parent } = fn
  if (parent !== undefined) {
    const bridge = machine.functions.find(({ address }) => address === parent)
    if (!bridge) found.push(at('parent', `there is no function ${parent} in this machine`))
    else if (!bridge.isBridge)
      found.push(at('parent', `${parent} is not a bridge; a bridge has \`bridge = true\``))
    else if (isBehindItself(fn.address, machine.functions))
      found.push(at('parent', `${fn.address} is behind itself`))
  }
  if (boundDriver !== undefined && !machine.drivers.includes(boundDriver))
    found.push(at('bound_driver', `"${boundDriver}" is not among the drivers`))
  if (boundDriver !== undefined && boundDriver !== nativeDriver && boundDriver !== 'vfio-pci')
    found.push(at('bound_driver', `"${boundDriver}" is not its native_driver`))
  const indexes = fn.bars.flatMap(({ index, kind }) =>
    kind === 'memory64' ? [index, index + 1] : [index],
  )
  if (new Set(indexes).size < indexes.length || indexes.some((index) => index > 5))
    found.push(at('bars', 'two BARs take the same place; a memory64 BAR takes two'))
  return found
}

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
