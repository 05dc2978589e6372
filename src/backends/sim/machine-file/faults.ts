/** `[[faults]]` of the machine file: what goes wrong from the start. */
import { z } from 'zod'
import { ERRNO, type ErrnoName } from '../../../base/errno.ts'
import {
  COMMAND_MAX,
  FAULT_CALLS,
  FAULT_REQUESTS,
  type FaultEffect,
  type FaultSpec,
  HOLDER_COMMAND,
  PID_MAX,
} from '../spec/fault-spec.ts'

const errno = z.enum(Object.keys(ERRNO) as [ErrnoName, ...ErrnoName[]])
const device = z.string().min(1)

const effect = z
  .union([
    z.strictObject({ errno }),
    z.strictObject({ stall: z.int().nonnegative() }),
    z.strictObject({ short: z.int().nonnegative() }),
    z.strictObject({ lose: device }),
    z.strictObject({ aer: device }),
    z.strictObject({ unplug: device }),
    z.strictObject({ plug: device }),
    z.strictObject({
      hold: z.string().min(1),
      pid: z.int().positive().max(PID_MAX),
      command: z.string().min(1).max(COMMAND_MAX).default(HOLDER_COMMAND),
    }),
    z.strictObject({ arc: device, errno }),
  ])
  .transform((given): FaultEffect => {
    if ('stall' in given) return { kind: 'stall', steps: given.stall }
    if ('short' in given) return { kind: 'short', bytes: given.short }
    if ('lose' in given) return { kind: 'lose', device: given.lose }
    if ('aer' in given) return { kind: 'aer', device: given.aer }
    if ('unplug' in given) return { kind: 'unplug', device: given.unplug }
    if ('plug' in given) return { kind: 'plug', device: given.plug }
    if ('hold' in given)
      return { kind: 'hold', path: given.hold, pid: given.pid, command: given.command }
    if ('arc' in given) return { kind: 'arc', device: given.arc, errno: given.errno }
    return { kind: 'errno', errno: given.errno }
  })

export const faultTable = z
  .strictObject({
    name: z.string().min(1),
    call: z.enum(FAULT_CALLS).optional(),
    request: z
      .string()
      .refine((name) => FAULT_REQUESTS.has(name), 'there is no such request')
      .optional(),
    device: z.string().optional(),
    path: z.string().optional(),
    nth: z.int().positive().default(1),
    times: z.int().nonnegative().default(1),
    effect,
  })
  .transform((given): FaultSpec => {
    const { name, nth, times } = given
    const where = {
      call: given.call,
      request: given.request,
      device: given.device,
      path: given.path,
    }
    const said = Object.fromEntries(
      Object.entries(where).filter(([, value]) => value !== undefined),
    )
    return { name, nth, times, effect: given.effect, ...said }
  })
