/**
 * Faults by name: what goes wrong, in which calls, and at which of them. Each call that matches
 * counts, and from the n-th on the fault strikes so many times. The names are those of errnos,
 * ioctls and calls, so that a machine file, a test and an RPC say the same.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { Pending } from '../core/pending.ts'
import type { Call, FaultAnswer } from '../file/kernel.ts'
import { FAULT_REQUESTS, type FaultEffect, type FaultSpec } from '../spec/fault-spec.ts'

/** What a fault can do to the machine. */
export interface FaultTarget {
  lose(device: string): void
  aer(device: string): void
  failNextArc(device: string, errno: number): void
  unplug(device: string): void
  plug(device: string): void
  /** Answers how the process lets go, or undefined where it could not open the file. */
  hold(what: Extract<FaultEffect, { kind: 'hold' }>): (() => void) | undefined
  /** Whether the device is there, and for an arc whether it has any. */
  has(device: string, effect: FaultEffect['kind']): boolean
}

export interface FaultStatus {
  readonly spec: FaultSpec
  /** Calls that matched. */
  readonly seen: number
  /** Calls that were struck. */
  readonly struck: number
}

/** Why a fault makes no sense, or undefined. */
export const faultMistake = (spec: FaultSpec, target: FaultTarget): string | undefined => {
  const { effect, request, call } = spec
  if (spec.name === '') return 'it has no name'
  if (request !== undefined && !FAULT_REQUESTS.has(request)) return `there is no request ${request}`
  if (request !== undefined && call !== undefined && call !== 'ioctl')
    return `a ${call} has no request`
  if (effect.kind === 'short' && !['pread', 'pwrite', 'read', 'write'].includes(call ?? ''))
    return 'only pread, pwrite, read and write can be short'
  if ('device' in effect && !target.has(effect.device, effect.kind))
    return `"${effect.device}" is not a device that can have this fault`
  return undefined
}

class Fault {
  readonly spec: FaultSpec
  seen = 0
  struck = 0
  /** Ends what the fault holds. */
  letGo: (() => void) | undefined
  /** Calls that wait for the fault to be cleared. */
  readonly stalled = new Set<() => void>()

  constructor(spec: FaultSpec) {
    this.spec = spec
  }

  /** Whether it strikes this call, which it counts. */
  strikes(call: Call): boolean {
    if (!matches(this.spec, call)) return false
    this.seen += 1
    const { nth, times } = this.spec
    if (this.seen < nth || (times > 0 && this.struck >= times)) return false
    this.struck += 1
    return true
  }
}

const matches = (spec: FaultSpec, { name, path, file, request }: Call): boolean => {
  const wanted = spec.request === undefined ? spec.call : 'ioctl'
  if (wanted !== undefined && wanted !== name) return false
  if (spec.request !== undefined && FAULT_REQUESTS.get(spec.request) !== request) return false
  if (spec.path !== undefined && !path?.includes(spec.path)) return false
  return spec.device === undefined || file?.deviceName === spec.device
}

export class Faults {
  readonly #target: FaultTarget
  readonly #pending: Pending
  readonly #faults = new Map<string, Fault>()

  constructor(target: FaultTarget, pending: Pending) {
    this.#target = target
    this.#pending = pending
  }

  /** In the place of one of the same name; throws what faultMistake() says. */
  inject(spec: FaultSpec): void {
    const mistake = faultMistake(spec, this.#target)
    if (mistake !== undefined)
      throw new RangeError(`Cannot inject fault "${spec.name}": ${mistake}`)
    this.clear(spec.name)
    this.#faults.set(spec.name, new Fault(spec))
  }

  list(): FaultStatus[] {
    return [...this.#faults.values()].map(({ spec, seen, struck }) => ({ spec, seen, struck }))
  }

  /** One fault, or all: what it stalled goes on. False when there is none of that name. */
  clear(name?: string): boolean {
    const gone = [...this.#faults.values()].filter(
      ({ spec }) => name === undefined || spec.name === name,
    )
    for (const fault of gone) {
      this.#faults.delete(fault.spec.name)
      fault.letGo?.()
      for (const resume of fault.stalled) resume()
    }
    return gone.length > 0
  }

  /** What becomes of a call; of those that decide about it, the first fault that strikes does. */
  decide(call: Call): FaultAnswer | Promise<FaultAnswer> {
    for (const fault of this.#faults.values()) {
      if (!fault.strikes(call)) continue
      const decided = this.#strike(fault)
      if (decided !== undefined) return decided
    }
    return undefined
  }

  #strike(fault: Fault): FaultAnswer | Promise<FaultAnswer> {
    const { effect } = fault.spec
    switch (effect.kind) {
      case 'errno':
        return -ERRNO[effect.errno]
      case 'short':
        return { atMost: effect.bytes }
      case 'stall':
        return this.#stall(fault, effect.steps)
      case 'lose':
        this.#target.lose(effect.device)
        return undefined
      case 'unplug':
        this.#target.unplug(effect.device)
        return undefined
      case 'plug':
        this.#target.plug(effect.device)
        return undefined
      case 'hold':
        this.#hold(fault, effect)
        return undefined
      case 'aer':
        this.#target.aer(effect.device)
        return undefined
      case 'arc':
        this.#target.failNextArc(effect.device, ERRNO[effect.errno])
        return undefined
    }
  }

  /** Where the file is not there, or cannot be opened now, the next call that matches tries again. */
  #hold(fault: Fault, effect: Extract<FaultEffect, { kind: 'hold' }>): void {
    fault.letGo ??= this.#target.hold(effect)
    if (fault.letGo === undefined) fault.struck -= 1
  }

  #stall(fault: Fault, steps: number): Promise<undefined> {
    return new Promise((resolve) => {
      const resume = (): void => {
        fault.stalled.delete(resume)
        stop()
        resolve(undefined)
      }
      let left = steps
      // Without a number of steps nothing is watched: only clearing ends it.
      const stop =
        steps === 0
          ? () => {}
          : this.#pending.watch(() => {
              left -= 1
              if (left === 0) resume()
              return true
            })
      fault.stalled.add(resume)
    })
  }
}
