/**
 * A Linux kernel with VFIO, type1, iommufd and devices, without hardware: the entry of the simulator.
 *
 *   const { kernel } = createSim(defaultMachine)
 *   const container = await kernel.open('/dev/vfio/vfio', O_RDWR)
 *
 * `kernel` is the port (kernel/port.ts), the system call in bytes: it answers as Linux 6.12 does,
 * or as the version that the machine names. Memory and eventfds are those of this process, and its
 * devices do their DMA in there. A machine is data: `spec/` describes it, `machine-file/` reads it
 * from TOML. The handle has besides what no kernel has: time, faults, and further processes.
 *
 * Folders, from the ground up: spec, machine-file; core (mm, user memory, eventfds, time), file
 * (open files, processes, the file system), iommu, type1, iommufd, vfio (containers, groups, cdevs,
 * what all devices answer), devices (edu, mtty, profiles of vendors, PCI), machine (buses, faults),
 * sysfs. Of vfiod it needs the port, the layouts of abi, os, and the arithmetic of rules.
 */

import { readFileSync } from 'node:fs'
import { pid as ownPid } from 'node:process'
import type { Kernel } from '../../kernel/port.ts'
import type { Segment } from '../../os/memory.ts'
import { Mm, User } from './core/mm.ts'
import type { VendorDevice } from './devices/profiles/vendor-device.ts'
import { type Fault, SimKernel } from './file/kernel.ts'
import { Process } from './file/process.ts'
import { Vfs } from './file/vfs.ts'
import { hold } from './holder.ts'
import { Faults } from './machine/faults.ts'
import { Machine } from './machine/machine.ts'
import type { FaultEffect } from './spec/fault-spec.ts'
import type { MachineSpec } from './spec/machine-spec.ts'
import { fileTree } from './sysfs/tree.ts'
import type { VfioDevice } from './vfio/vfio-device.ts'

export interface SimProcess {
  readonly kernel: Kernel
  /** VmLck: the pages that are pinned on its behalf. */
  readonly lockedPages: bigint
  /** VmPin: the pages of it that iommufd has pinned. */
  readonly pinnedPages: bigint
  /** An fd of this process for a file that another one has open, as SCM_RIGHTS gives one. */
  receive(from: SimProcess, fd: number): number
  /** Closes everything. What it mapped stays charged to it while others hold the files. */
  exit(): void
}

export interface SpawnOptions {
  /** RLIMIT_MEMLOCK; null with CAP_IPC_LOCK. */
  readonly memlockBytes?: bigint | null
  /** CAP_SYS_RESOURCE. */
  readonly mayRaiseLimits?: boolean
  /** What of this process's memory it can pin; all of it unless said. */
  readonly memory?: readonly Segment[]
}

export interface Sim extends SimProcess {
  /** Every pending device action happens once; whether anything did. */
  step(): boolean
  /** Another process on the machine, with its own memory map and fds. */
  spawn(options?: SpawnOptions): SimProcess
  /** The firmware refuses the next arc of a vendor-like function. */
  failNextArc(address: string, errno: number): void
  /** Faults by name. */
  readonly faults: Faults
  /** Called before every call, and before the named faults. */
  fault: Fault | undefined
}

/** What /proc/self/comm of the real process says. */
const ownCommand = (): string => readFileSync('/proc/self/comm', 'utf8').trim()

/** A machine that runs. Its `time` may be set here, for tests that poke it. */
export const createSim = (
  spec: MachineSpec,
  { time = spec.time ?? 'auto' }: Pick<MachineSpec, 'time'> = {},
): Sim => {
  const machine = new Machine(spec, time)
  const vfs = new Vfs(fileTree(machine))
  const processes = new WeakMap<SimProcess, Process>()

  const user = new User()
  /** A process of another user, whose memory is nothing of this one. */
  const holderOf = ({ path, pid, command }: Extract<FaultEffect, { kind: 'hold' }>) => {
    const process = new Process(new Mm(null, new User(), []), { pid, command })
    const letGo = (): void => {
      machine.processes.delete(process)
      process.closeAll()
    }
    machine.processes.add(process)
    if (hold(vfs, process, path)) return letGo
    letGo()
    return undefined
  }

  const processOf = (options: SpawnOptions): { handle: SimProcess; process: Process } => {
    const { memlockBytes = spec.memlockBytes, mayRaiseLimits = true, memory } = options
    const mm = new Mm(memlockBytes, user, memory)
    const pid = ownPid + machine.processes.size
    const process = new Process(mm, { pid, command: ownCommand(), mayRaiseLimits })
    machine.processes.add(process)
    const kernel = new SimKernel(vfs, process, (call) => sim.fault?.(call) ?? faults.decide(call))
    const handle: SimProcess = {
      kernel,
      get lockedPages() {
        return mm.lockedPages
      },
      get pinnedPages() {
        return mm.pinnedPages
      },
      receive: (from, fd) => {
        const file = processes.get(from)?.fileOf(fd)
        if (!file) throw new Error(`Cannot receive fd ${fd}: it is not open there`)
        return process.receive(file)
      },
      exit: () => {
        machine.processes.delete(process)
        process.closeAll()
      },
    }
    processes.set(handle, process)
    return { handle, process }
  }

  const vendorAt = (address: string): VendorDevice => {
    const vendor = machine.pci.functions.get(address)?.vendor
    if (!vendor) throw new Error(`Cannot find ${address}: it is not a vendor-like function`)
    return vendor
  }

  const deviceAt = (name: string): VfioDevice | undefined =>
    [...machine.vfio.devices.values()].find((device) => device.name === name)
  const faults = new Faults(
    {
      lose: (name) =>
        machine.hotplug.has(name) ? machine.hotplug.lose(name) : deviceAt(name)?.lose(),
      unplug: (name) => void machine.hotplug.unplug(name),
      plug: (name) => void machine.hotplug.plug(name),
      hold: holderOf,
      aer: (name) => deviceAt(name)?.reportError(),
      failNextArc: (name, errno) => vendorAt(name).migration?.failNextArc(-errno),
      has: (name, effect) => {
        if (effect === 'plug' || effect === 'unplug') return machine.hotplug.has(name)
        const fn = machine.pci.functions.get(name)
        return effect === 'arc'
          ? fn?.vendor?.migration !== undefined
          : (fn ?? deviceAt(name)) !== undefined
      },
    },
    machine.pending,
  )
  for (const fault of spec.faults ?? []) faults.inject(fault)

  const { handle: first, process } = processOf({})
  const sim: Sim = {
    kernel: first.kernel,
    get lockedPages() {
      return first.lockedPages
    },
    get pinnedPages() {
      return first.pinnedPages
    },
    receive: first.receive,
    exit: first.exit,
    faults,
    step: () => machine.pending.step(),
    failNextArc: (address, errno) => vendorAt(address).migration?.failNextArc(-errno),
    spawn: (options = {}) => processOf(options).handle,
    fault: undefined,
  }
  processes.set(sim, process)
  return sim
}
