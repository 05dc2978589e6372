/** A machine of vendor-like devices, and how tests speak to one through the port. */

import { VFIO_TYPE1v2_IOMMU } from '../../src/abi/container.ts'
import { VFIO_DEVICE_RESET } from '../../src/abi/device.ts'
import { VFIO_MIG_GET_PRECOPY_INFO, vfio_precopy_info } from '../../src/abi/mig-v2.ts'
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/abi/pci.ts'
import { ENGINE } from '../../src/backends/sim/devices/profiles/engine.ts'
import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import {
  defaultMachine,
  MSI_WINDOW,
  vendorFunction,
} from '../../src/backends/sim/spec/default-machine.ts'
import type {
  FunctionSpec,
  MachineSpec,
  VendorKind,
} from '../../src/backends/sim/spec/machine-spec.ts'
import type { Segment } from '../../src/os/memory.ts'
import { must } from './answers.ts'
import { getMigState, mapDma, setContainer, setIommu, setMigState } from './calls.ts'
import { Machine } from './machine.ts'
import { STATE, type StateName } from './mtty-driver.ts'

const CONFIG = 7n << 40n

export type Change = Partial<FunctionSpec>

/** Two functions of each kind at 0000:10:0k.n, k counting the kinds, each in a group of its own. */
export const vendorMachine = (
  kinds: readonly (readonly [VendorKind, Change?])[],
): MachineSpec & { readonly addresses: readonly string[] } => {
  const functions = kinds.map(([kind, change], n) => ({
    ...vendorFunction(kind),
    address: `0000:10:${String(n + 1).padStart(2, '0')}.0`,
    group: 100 + n,
    boundDriver: 'vfio-pci',
    ...change,
  }))
  return {
    ...defaultMachine,
    functions,
    groups: functions.map(({ group: id }) => ({ id, reserved: [MSI_WINDOW] })),
    addresses: functions.map(({ address }) => address),
  }
}

export class VendorDriver {
  readonly machine: Machine
  readonly device: number

  constructor(machine: Machine, device: number) {
    this.machine = machine
    this.device = device
  }

  async enable(): Promise<this> {
    const command = Buffer.alloc(2)
    command.writeUInt16LE(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
    const { kernel } = this.machine
    must(await kernel.pwrite(this.device, command, CONFIG + BigInt(PCI_COMMAND)), 'enable')
    return this
  }

  async get(register: number): Promise<bigint> {
    const bytes = Buffer.alloc(8)
    must(await this.machine.kernel.pread(this.device, bytes, BigInt(register)), 'read a register')
    return bytes.readBigUInt64LE()
  }

  async put(register: number, value: bigint): Promise<void> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    must(await this.machine.kernel.pwrite(this.device, bytes, BigInt(register)), 'write a register')
  }

  /** BAR 0, as a peer has it mapped. */
  async map(): Promise<Segment> {
    const request = { offset: 0n, length: 4096n, access: 'read-write' } as const
    const segment = await this.machine.mmap(this.device, request)
    if (typeof segment === 'number') throw new Error(`Cannot map BAR 0: ${segment}`)
    return segment
  }

  async work(range: { start: bigint; last: bigint }, pages: bigint, pattern = 0n): Promise<void> {
    await this.put(ENGINE.start, range.start)
    await this.put(ENGINE.last, range.last)
    await this.put(ENGINE.pagesPerStep, pages)
    await this.put(ENGINE.pattern, pattern)
    await this.put(ENGINE.control, 1n)
  }

  async set(state: StateName): Promise<number> {
    const { answer, dataFd } = await setMigState(this.machine.kernel, this.device, STATE[state])
    if (answer !== 0) return answer
    this.machine.track(dataFd)
    return dataFd
  }

  async state(): Promise<number> {
    return (await getMigState(this.machine.kernel, this.device)).state
  }

  reset(): Promise<number> {
    return this.machine.kernel.ioctl(this.device, VFIO_DEVICE_RESET.number, undefined)
  }

  async precopyInfo(dataFd: number): Promise<{ initial: bigint; dirty: bigint } | number> {
    const arg = vfio_precopy_info.encode({ argsz: vfio_precopy_info.size })
    const answer = await this.machine.kernel.ioctl(dataFd, VFIO_MIG_GET_PRECOPY_INFO.number, arg)
    if (answer < 0) return answer
    const { initial_bytes: initial, dirty_bytes: dirty } = vfio_precopy_info.decode(arg)
    return { initial, dirty }
  }

  /** What the data_fd has now, and the answer that ended it. */
  async drain(dataFd: number): Promise<{ bytes: Buffer; end: number }> {
    const pieces: Buffer[] = []
    for (;;) {
      const piece = Buffer.alloc(50_000)
      const length = await this.machine.kernel.read(dataFd, piece)
      if (length <= 0) return { bytes: Buffer.concat(pieces), end: length }
      pieces.push(piece.subarray(0, length))
    }
  }
}

export interface VendorWorld {
  readonly sim: Sim
  readonly machine: Machine
  readonly drivers: readonly VendorDriver[]
  readonly container: number
  readonly addresses: readonly string[]
}

/** All devices of a machine, open in one container. */
export const vendorWorld = async (
  kinds: readonly (readonly [VendorKind, Change?])[],
): Promise<VendorWorld> => {
  const spec = vendorMachine(kinds)
  const sim = createSim(spec, { time: 'poked' })
  const machine = new Machine('sim', sim.kernel, async () => void sim.step())
  const container = await machine.container()
  const groups: number[] = []
  for (const address of spec.addresses) {
    const group = await machine.group(address)
    must(await setContainer(sim.kernel, group, container), 'set the container')
    groups.push(group)
  }
  must(await setIommu(sim.kernel, container, VFIO_TYPE1v2_IOMMU), 'set the IOMMU')
  const drivers: VendorDriver[] = []
  for (const [n, address] of spec.addresses.entries()) {
    const device = await machine.deviceOf(groups[n] as number, address)
    drivers.push(await new VendorDriver(machine, device).enable())
  }
  return { sim, machine, drivers, container, addresses: spec.addresses }
}

/** Memory that the devices of a world reach at an iova. */
export const mapped = async ({ machine, container }: VendorWorld, iova: bigint, length: number) => {
  const { segment } = await machine.memory(length)
  const map = { vaddr: segment.address, iova, size: BigInt(length) }
  must(await mapDma(machine.kernel, container, map), 'map memory')
  return segment
}
