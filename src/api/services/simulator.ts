/** SimulatorService: what goes wrong in a simulated machine, and its time. */
import { badArgument, VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Fault, Fault__Output } from '../../proto/vfiod/v1/Fault.ts'
import type { FaultKind, FaultKind__Output } from '../../proto/vfiod/v1/FaultKind.ts'
import type { SimulatorServiceHandlers } from '../../proto/vfiod/v1/SimulatorService.ts'
import type { Handlers } from '../call/call.ts'

/** A fault in words: the names are checked by the simulator, which alone knows them. */
export interface FaultText {
  readonly name: string
  readonly call: string
  readonly request: string
  readonly device: string
  readonly path: string
  readonly nth: number
  readonly times: number
  readonly kind: string
  readonly errno: string
  readonly number: number
  readonly target: string
  readonly command: string
}

/** The simulated machine, as far as an administrator may poke it. */
export interface Simulator {
  /** Answers why the fault makes no sense, or undefined once it is there. */
  inject(fault: FaultText): string | undefined
  faults(): readonly { readonly fault: FaultText; readonly seen: number; readonly struck: number }[]
  /** All where no name is given; whether there were any. */
  clear(name?: string): boolean
  step(): boolean
}

const STEPS_MAX = 10_000

const kindOf = (kind: FaultKind__Output): string =>
  String(kind).replace('FAULT_KIND_', '').toLowerCase()

const textOf = (fault: Fault__Output): FaultText => ({
  ...fault,
  name: fault.fault,
  errno: fault.error,
  nth: fault.nth || 1,
  kind: kindOf(fault.kind),
})

function requireRoom(simulator: Simulator, name: string): void {
  const names = simulator.faults().map(({ fault }) => fault.name)
  if (names.length < LIMITS.faults || names.includes(name)) return
  const max = BigInt(LIMITS.faults)
  throw new VfiodError(
    'LIMIT_REACHED',
    `Cannot inject fault "${name}": there are ${max} already; clear some`,
    { quota: { limit: 'faults of the simulated machine', max, current: max, needed: 1n } },
  )
}

const faultToProto = ({ name, errno, kind, ...rest }: FaultText): Fault => ({
  ...rest,
  fault: name,
  error: errno,
  kind: `FAULT_KIND_${kind.toUpperCase()}` as FaultKind,
})

export const simulatorHandlers = (simulator: Simulator): Handlers<SimulatorServiceHandlers> => ({
  InjectFault: ({ fault }) => {
    if (fault === null) throw badArgument('fault', 'Cannot inject a fault: none was given')
    requireRoom(simulator, fault.fault)
    const mistake = simulator.inject(textOf(fault))
    if (mistake !== undefined) throw badArgument('fault', mistake)
    return {}
  },

  ListFaults: () => ({
    faults: simulator.faults().map(({ fault, seen, struck }) => ({
      fault: faultToProto(fault),
      seen: String(seen),
      struck: String(struck),
    })),
  }),

  ClearFaults: ({ fault }) => {
    if (!simulator.clear(fault === '' ? undefined : fault) && fault !== '')
      throw badArgument('fault', `Cannot clear "${fault}": there is no such fault`)
    return {}
  },

  Step: ({ steps }) => {
    if (steps > STEPS_MAX)
      throw badArgument('steps', `Cannot do ${steps} steps: at most ${STEPS_MAX} are allowed`)
    let happened = false
    for (let done = 0; done < Math.max(1, steps); done++) happened = simulator.step() || happened
    return { happened }
  },
})
