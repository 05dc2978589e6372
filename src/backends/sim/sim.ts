/** The handle on a simulated machine: its kernel, and what only a simulator can do. */

import type { Kernel } from '../../kernel/port.ts'
import { type Fault, SimKernel } from './kernel.ts'
import type { MachineSpec } from './machine.ts'
import { Machine } from './machine-state.ts'
import { Mm } from './mm.ts'
import { Process } from './process.ts'
import { fileTree } from './sysfs/tree.ts'
import { Vfs } from './vfs.ts'

export interface SimProcess {
  readonly kernel: Kernel
  /** VmLck: the pages that are pinned on its behalf. */
  readonly lockedPages: bigint
  /** An fd of this process for a file that another one has open, as SCM_RIGHTS gives one. */
  receive(from: SimProcess, fd: number): number
  /** Closes everything. What it mapped stays charged to it while others hold the files. */
  exit(): void
}

export interface Sim extends SimProcess {
  /** Every pending device action happens once; whether anything did. */
  step(): boolean
  /** Another process on the machine, with a memory map and fds of its own. */
  spawn(options?: { readonly memlockBytes?: bigint | null }): SimProcess
  /** What is asked before every call: a number is the call's answer. */
  fault: Fault | undefined
}

export const createSim = (
  spec: MachineSpec,
  { time }: { readonly time: 'poked' | 'auto' },
): Sim => {
  const machine = new Machine(spec, time)
  const vfs = new Vfs(fileTree(machine))
  const processes = new WeakMap<SimProcess, Process>()

  const processOf = (memlockBytes: bigint | null): { handle: SimProcess; process: Process } => {
    const mm = new Mm(memlockBytes)
    const process = new Process(mm)
    const kernel = new SimKernel(vfs, process, (call) => sim.fault?.(call))
    const handle: SimProcess = {
      kernel,
      get lockedPages() {
        return mm.lockedPages
      },
      receive: (from, fd) => {
        const file = processes.get(from)?.fileOf(fd)
        if (!file) throw new Error(`Cannot receive fd ${fd}: it is not open there`)
        return process.receive(file)
      },
      exit: () => process.closeAll(),
    }
    processes.set(handle, process)
    return { handle, process }
  }

  const { handle: first, process } = processOf(spec.memlockBytes)
  const sim: Sim = {
    kernel: first.kernel,
    get lockedPages() {
      return first.lockedPages
    },
    receive: first.receive,
    exit: first.exit,
    step: () => machine.pending.step(),
    spawn: ({ memlockBytes = spec.memlockBytes } = {}) => processOf(memlockBytes).handle,
    fault: undefined,
  }
  processes.set(sim, process)
  return sim
}
