/** What an administrator pokes of a simulated machine: the words of the API made faults of it. */
import type { FaultText, Simulator } from '../api/services/simulator.ts'
import type { Sim } from '../backends/sim/sim.ts'
import {
  COMMAND_MAX,
  FAULT_CALLS,
  type FaultEffect,
  type FaultSpec,
  HOLDER_COMMAND,
  PID_MAX,
} from '../backends/sim/spec/fault-spec.ts'
import { ERRNO, type ErrnoName } from '../base/errno.ts'

const errnoOf = (name: string): ErrnoName => {
  if (name in ERRNO) return name as ErrnoName
  throw new RangeError(`Cannot inject a fault: there is no errno "${name}"`)
}

const holdOf = ({ number: pid, target: path, command }: FaultText): FaultEffect => {
  if (pid < 1 || pid > PID_MAX)
    throw new RangeError(`Cannot inject a fault: ${pid} is not a pid; 1 to ${PID_MAX} is`)
  if (Buffer.byteLength(command) > COMMAND_MAX)
    throw new RangeError(`Cannot inject a fault: "${command}" has more than ${COMMAND_MAX} bytes`)
  return { kind: 'hold', path, pid, command: command === '' ? HOLDER_COMMAND : command }
}

const effectOf = (text: FaultText): FaultEffect => {
  const { kind, errno, number, target } = text
  switch (kind) {
    case 'errno':
      return { kind, errno: errnoOf(errno) }
    case 'stall':
      return { kind, steps: number }
    case 'short':
      return { kind, bytes: number }
    case 'hold':
      return holdOf(text)
    case 'lose':
    case 'unplug':
    case 'plug':
    case 'aer':
      return { kind, device: target }
    case 'arc':
      return { kind, device: target, errno: errnoOf(errno) }
    default:
      throw new RangeError('Cannot inject a fault: it has no kind')
  }
}

const specOf = (text: FaultText): FaultSpec => {
  const call = FAULT_CALLS.find((name) => name === text.call)
  if (call === undefined && text.call !== '')
    throw new RangeError(`Cannot inject a fault: there is no call "${text.call}"`)
  return {
    name: text.name,
    nth: text.nth,
    times: text.times,
    effect: effectOf(text),
    ...(call === undefined ? {} : { call }),
    ...(text.request === '' ? {} : { request: text.request }),
    ...(text.device === '' ? {} : { device: text.device }),
    ...(text.path === '' ? {} : { path: text.path }),
  }
}

const numberOf = (effect: FaultEffect): number => {
  switch (effect.kind) {
    case 'stall':
      return effect.steps
    case 'short':
      return effect.bytes
    case 'hold':
      return effect.pid
    default:
      return 0
  }
}

const textOf = ({ effect, ...spec }: FaultSpec): FaultText => ({
  call: '',
  request: '',
  device: '',
  path: '',
  ...spec,
  kind: effect.kind,
  errno: 'errno' in effect ? effect.errno : '',
  number: numberOf(effect),
  target: 'device' in effect ? effect.device : effect.kind === 'hold' ? effect.path : '',
  command: effect.kind === 'hold' ? effect.command : '',
})

export const simulatorOf = (sim: Sim): Simulator => ({
  inject: (text) => {
    try {
      sim.faults.inject(specOf(text))
      return undefined
    } catch (error) {
      if (error instanceof RangeError) return error.message
      throw error
    }
  },
  faults: () =>
    sim.faults.list().map(({ spec, seen, struck }) => ({ fault: textOf(spec), seen, struck })),
  clear: (name) => sim.faults.clear(name),
  step: () => sim.step(),
})
