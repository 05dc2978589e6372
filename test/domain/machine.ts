/** A domain over a simulated machine, for tests of what vfiod promises. */

import { createSim, type Sim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { createDomain, type Domain } from '../../src/domain/domain.ts'
import type { Client } from '../../src/domain/identity/clients.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { type Mode, TYPE1 } from '../modes.ts'

export const EDU = '0000:00:04.0'
export const EDU_GROUP = 3
export const OTHER_EDU = '0000:00:05.0'
export const OTHER_EDU_GROUP = 4
export const MTTY = defaultMachine.mdevs[0]?.uuid ?? ''

/** Longer than any test: a look in between would count as a call of the port. */
const NEVER_MS = 3_600_000

export interface World {
  readonly sim: Sim
  readonly mode: Mode
  readonly domain: Domain
  /** Pages that the kernel has pinned and charged for address spaces. */
  pinned(): bigint
  /** What the domain logged. */
  readonly log: {
    readonly event: string
    readonly fields: Record<string, unknown>
    /** Where it is more than information. */
    readonly level?: 'warn'
  }[]
}

/** A machine, the built-in one where nothing else is said; its time goes by itself unless poked. */
export function world(
  changes: Partial<MachineSpec> = {},
  options: {
    readonly time?: 'poked' | 'auto'
    /** How long callers wait for the kernel. */
    readonly patienceMs?: number
    /** How often attached groups are looked at; by calls only when missing. */
    readonly reconcileMs?: number
    /** What stands behind an address space. */
    readonly mode?: Mode
    /** What stands between the domain and the simulated kernel. */
    readonly over?: (kernel: Kernel) => Kernel
  } = {},
): World {
  const { time = 'auto', mode = TYPE1, over = (kernel) => kernel } = options
  const machine = { ...defaultMachine, vfioContainer: mode.vfioContainer, ...changes }
  const sim = createSim(machine, { time })
  const log: World['log'][number][] = []
  const domain = createDomain({
    kernel: over(sim.kernel),
    memoryBytes: machine.memoryBytes,
    reconcileMs: options.reconcileMs ?? NEVER_MS,
    ...(options.patienceMs === undefined ? {} : { patienceMs: options.patienceMs }),
    log: (event, fields, level) =>
      log.push({ event, fields, ...(level === 'warn' ? { level } : {}) }),
  })
  const pinned = () => (mode === TYPE1 ? sim.lockedPages : sim.pinnedPages)
  return { sim, mode, domain, pinned, log }
}

/** A space of the client that is ready: the first edu is bound and its group a member. */
export async function readySpace({ domain }: World, client: Client, id = 'space') {
  await domain.binding.bind(client, { devices: [EDU], driver: undefined, wholeGroup: false })
  await domain.spaces.create(client, id)
  return domain.spaces.addGroup(client, id, EDU_GROUP)
}

/** Let the n-th call of an ioctl fail with an errno; the others are made. */
export function failIoctl(sim: Sim, request: { readonly number: number }, errno: number): void {
  sim.fault = (call) => {
    if (call.name !== 'ioctl' || call.request !== request.number) return undefined
    sim.fault = undefined
    return -errno
  }
}
