/** `[[functions]]` of the machine file: what a PCI function is, and what it cannot be beside the others. */
import { z } from 'zod'
import { EDU_FUNCTION, PLAIN_FUNCTION, vendorFunction } from '../spec/default-machine.ts'
import { isVfioDriver } from '../spec/drivers.ts'
import {
  BAR_KINDS,
  DMA_PATTERNS,
  FUNCTION_KINDS,
  type FunctionKind,
  type FunctionSpec,
  type SriovSpec,
  V1_ORDERS,
  VENDOR_KINDS,
} from '../spec/machine-spec.ts'
import { virtualFunctions } from '../spec/sriov.ts'
import { consoleName, disk, networkInterface } from './host-parts.ts'
import { powerOfTwo, range, u64, unsigned } from './numbers.ts'

/** Why a file cannot be used, and where it says so. */
export interface Contradiction {
  readonly path: (string | number)[]
  readonly message: string
}

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

const functionKeys = z.strictObject({
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
  disks: z.array(disk).optional(),
  interfaces: z.array(networkInterface).optional(),
  consoles: z.array(consoleName).optional(),
})

type Keys = Omit<z.infer<typeof functionKeys>, 'address' | 'group'>

const baseOf = (kind: FunctionKind) => {
  const vendor = VENDOR_KINDS.find((name) => name === kind)
  if (vendor) return vendorFunction(vendor)
  return kind === 'edu' ? EDU_FUNCTION : PLAIN_FUNCTION
}

/** What a function is, wherever it is. */
const described = (given: Partial<Pick<Keys, 'parent'>> & Omit<Keys, 'parent'>) => {
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
    disks: given.disks,
    interfaces: given.interfaces,
    consoles: given.consoles,
  }
  const { kind } = given
  const own = Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
  return { ...baseOf(kind), ...own, kind }
}

/** What a virtual function has of its physical one. */
const OF_PHYSICAL = {
  address: true,
  group: true,
  vendor: true,
  parent: true,
  plugged: true,
} as const

const sriov = z
  .strictObject({
    total_vfs: z.int().min(1).max(256),
    num_vfs: z.int().nonnegative().default(0),
    offset: z.int().min(1).max(0xff).default(1),
    stride: z.int().min(1).max(0xff).default(1),
    first_group: z.int().nonnegative(),
    vf: functionKeys.omit(OF_PHYSICAL),
  })
  .refine(({ total_vfs, num_vfs }) => num_vfs <= total_vfs, 'num_vfs is above total_vfs')
  .transform(
    ({ total_vfs, num_vfs, offset, stride, first_group, vf }): SriovSpec => ({
      totalVfs: total_vfs,
      numVfs: num_vfs,
      offset,
      stride,
      firstGroup: first_group,
      vf: described({ pcie: true, reset: true, ...vf }),
    }),
  )

export const pciFunction = functionKeys.extend({ sriov: sriov.optional() }).transform(
  ({ address, group, sriov: virtual, ...given }): FunctionSpec => ({
    ...described(given),
    address,
    group,
    ...(virtual && { sriov: virtual }),
  }),
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

/** What a function cannot be in this machine. */
export const functionContradictions = (
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
  if (boundDriver !== undefined && boundDriver !== nativeDriver && !isVfioDriver(boundDriver))
    found.push(at('bound_driver', `"${boundDriver}" is not its native_driver`))
  for (const { address } of virtualFunctions(fn))
    if (machine.functions.some((other) => other.address === address))
      found.push(
        at('sriov', `a virtual function would be at ${address}, where another function is`),
      )
  const indexes = fn.bars.flatMap(({ index, kind }) =>
    kind === 'memory64' ? [index, index + 1] : [index],
  )
  if (new Set(indexes).size < indexes.length || indexes.some((index) => index > 5))
    found.push(at('bars', 'two BARs take the same place; a memory64 BAR takes two'))
  return found
}
