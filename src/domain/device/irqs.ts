/**
 * Interrupts: as a stream of counts, or as eventfds of the client that the kernel signals without the
 * daemon in between. Each vector has one or the other.
 */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { Mailbox } from '../../base/mailbox.ts'
import {
  armIrqs,
  disableIrqs,
  type IrqIndex,
  maskIrq,
  setUnmaskEventfd,
  triggerIrq,
  unmaskIrq,
} from '../../kernel/device-calls.ts'
import { irqFacts } from '../../kernel/device-facts.ts'
import { explained } from '../../kernel/diagnosis.ts'
import type { Kernel } from '../../kernel/port.ts'
import { accept, refusal } from '../../kernel/refusal.ts'
import { eventfdCreate, eventfdRead, isEventfd } from '../../os/eventfd.ts'
import { sys } from '../../os/libc.ts'
import { unwatch, watch } from '../../os/poller.ts'
import { ruledOut } from '../../rules/causes/cause.ts'
import { judgeIrqs } from '../../rules/causes/judge-device.ts'
import type { Client } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { Redeemed, Ticket, Tickets } from '../identity/tickets.ts'
import type { IrqListener, VectorRange } from './armed-irqs.ts'
import { notOpen, type OpenDevice } from './device.ts'
import type { Devices } from './devices.ts'

/** Vectors of an index of a device. */
export interface Vectors extends VectorRange {
  readonly name: string
  readonly index: number
  /** All from `start` on when zero. */
  readonly count: number
}

/** What becomes of eventfds: signalled by a vector, or unmasking it when the client signals them. */
export interface EventfdRequest extends Vectors {
  readonly action: 'trigger' | 'unmask'
  /** Vectors to allocate when the index is enabled by this; as many as are needed when less. */
  readonly allocate: number
}

export type IrqEvent =
  | { readonly kind: 'armed' }
  /** How often the vector was raised since it was last reported. */
  | { readonly kind: 'irq'; readonly vector: number; readonly count: bigint }

interface RaisedIrq {
  readonly vector: number
  readonly count: bigint
}

const joinIrqs = ({ vector, count }: RaisedIrq, more: RaisedIrq): RaisedIrq => ({
  vector,
  count: count + more.count,
})

/** One vector. */
interface VectorAt {
  readonly name: string
  readonly index: number
  readonly vector: number
}

export class Irqs {
  readonly #kernel: Kernel
  readonly #devices: Devices
  readonly #tickets: Tickets
  readonly #quotas: Quotas

  constructor(parts: {
    readonly kernel: Kernel
    readonly devices: Devices
    readonly tickets: Tickets
    readonly quotas: Quotas
  }) {
    this.#kernel = parts.kernel
    this.#devices = parts.devices
    this.#tickets = parts.tickets
    this.#quotas = parts.quotas
  }

  /** Arm vectors and report their interrupts until the signal; counts coalesce for a slow reader. */
  async *watch(
    client: Client,
    vectors: Vectors,
    signal: AbortSignal,
  ): AsyncGenerator<IrqEvent, void> {
    const device = this.#devices.get(client, vectors.name)
    const { irq, range } = requireVectors(device, vectors)
    const charge = this.#quotas.charge(client, { streams: 1n, fds: BigInt(range.count) })
    const disarming = new AbortController()
    const listener = { disarmed: () => disarming.abort() }
    const ends = device.until(signal)
    const raised = new Mailbox<RaisedIrq>({ join: joinIrqs })
    let eventfds: readonly number[] = []
    let isArmed = false
    try {
      eventfds = createEventfds(range.count)
      for (const [n, fd] of eventfds.entries()) {
        const watched = watch(fd, () => {
          const count = eventfdRead(fd)
          const vector = range.start + n
          if (typeof count === 'bigint') raised.push({ vector, count }, vector)
        })
        accept('epoll_ctl of an eventfd', watched, `watch ${range.count} eventfds`)
      }
      await this.#arm(client, device, { irq, range, eventfds, listener, allocate: 0 })
      isArmed = true
      yield { kind: 'armed' }
      const over = AbortSignal.any([ends, disarming.signal])
      for await (const each of raised.read(over)) yield { kind: 'irq', ...each }
      if (signal.aborted) return
      device.requireOwner(client)
      if (ends.aborted) throw notOpen(device.name)
      throw new VfiodError(
        'CANCELLED',
        `Cannot continue watching IRQ index ${irq.index} of ${device.name}: DisableIrqs disarmed its vectors`,
      )
    } finally {
      if (isArmed) await this.#endStream(device, irq, listener)
      for (const fd of eventfds) {
        unwatch(fd)
        sys.closeSync(fd)
      }
      charge.release()
    }
  }

  /** A ticket for which the fd channel takes one eventfd per vector, in as many packets as it takes. */
  setEventfds(client: Client, request: EventfdRequest): Ticket {
    const device = this.#devices.get(client, request.name)
    const { irq, range } = requireVectors(device, request)
    if (request.action === 'unmask') {
      requireMaskable(device, irq)
      device.armed.requireArmed(irq.index, range.start)
    } else device.armed.requireArmable(irq, range, 'eventfds')
    const { name, index } = request
    const purpose = { act: 'arm eventfds', object: { name, index } }
    return this.#tickets.issue(client, purpose, (fds) =>
      this.#takeEventfds(client, request, { fds, before: 0 }),
    )
  }

  /**
   * Disarm vectors: all of an index, which is disabled then, where start and count are zero, or some of
   * them, while others stay armed. Nothing happens to those that are not armed.
   */
  async disable(client: Client, vectors: Vectors): Promise<void> {
    const device = this.#devices.get(client, vectors.name)
    const { irq, range } = requireVectors(device, vectors)
    await device.run(client, async () => {
      if (!device.armed.isEnabled(irq.index)) return
      if (vectors.start === 0 && vectors.count === 0) await this.#disable(device, irq.index)
      else await this.#detach(device, irq, range)
    })
  }

  async setMask(client: Client, at: VectorAt & { readonly masked: boolean }): Promise<void> {
    const device = this.#devices.get(client, at.name)
    const irq = device.irq(at.index)
    requireVector(device, irq, at.vector)
    requireMaskable(device, irq)
    const act = at.masked ? maskIrq : unmaskIrq
    await device.run(client, () => {
      device.armed.requireArmed(at.index, at.vector)
      return act(this.#kernel, device.fd, at)
    })
  }

  /** Raise a vector from software. */
  async trigger(client: Client, at: VectorAt): Promise<void> {
    const device = this.#devices.get(client, at.name)
    requireVector(device, device.irq(at.index), at.vector)
    await device.run(client, async () => {
      device.armed.requireArmed(at.index, at.vector)
      if (device.signals.has(at.index)) device.signals.trigger(at.index)
      else await triggerIrq(this.#kernel, device.fd, at)
    })
  }

  /** One packet: all of the eventfds, or as many as a packet takes, and the ticket goes on. */
  async #takeEventfds(
    client: Client,
    request: EventfdRequest,
    { fds, before }: { readonly fds: readonly number[]; readonly before: number },
  ): Promise<Redeemed> {
    const device = this.#devices.get(client, request.name)
    const { irq, range } = requireVectors(device, request)
    requireEventfds(device, irq, { fds, needed: range.count })
    const part = { start: range.start, count: fds.length }
    if (request.action === 'unmask') await this.#unmaskBy(client, device, { irq, part, fds })
    else {
      const allocate = Math.max(request.allocate, range.start + range.count)
      const what = { irq, range: part, eventfds: fds, listener: 'eventfd', allocate } as const
      await this.#arm(client, device, what)
    }
    // The kernel holds the counters; the daemon's copies have done their part.
    for (const fd of fds) sys.closeSync(fd)
    const [vectors, missing] = [before + part.count, range.count - part.count]
    const redeemed = { reply: { name: request.name, vectors, missing }, fds: [] }
    if (missing === 0) return redeemed
    const rest = { ...request, start: part.start + part.count, count: missing }
    return {
      ...redeemed,
      rest: (more) => this.#takeEventfds(client, rest, { fds: more, before: vectors }),
    }
  }

  /** The kernel does not replace an eventfd that unmasks: EBUSY. */
  #unmaskBy(
    client: Client,
    device: OpenDevice,
    what: { readonly irq: IrqIndex; readonly part: VectorRange; readonly fds: readonly number[] },
  ): Promise<void> {
    const [eventfd = -1] = what.fds
    const at = { index: what.irq.index, vector: what.part.start }
    return device.run(client, async () => {
      device.armed.requireArmed(at.index, at.vector)
      await setUnmaskEventfd(this.#kernel, device.fd, { ...at, eventfd: -1 })
      await setUnmaskEventfd(this.#kernel, device.fd, { ...at, eventfd })
    })
  }

  #arm(
    client: Client,
    device: OpenDevice,
    what: {
      readonly irq: IrqIndex
      readonly range: VectorRange
      readonly eventfds: readonly number[]
      readonly listener: IrqListener
      readonly allocate: number
    },
  ): Promise<void> {
    const { irq, range, listener } = what
    const { index } = irq
    return device.run(client, async () => {
      const as = listener === 'eventfd' ? 'eventfds' : 'stream'
      device.armed.requireArmable(irq, range, as)
      const isFirst = !device.armed.isEnabled(index)
      const end = range.start + range.count
      const total = isFirst ? Math.min(Math.max(what.allocate, end), irq.count) : end
      const spare: number[] = Array(total - end).fill(-1)
      const eventfds = [...what.eventfds, ...spare]
      try {
        const armed = this.#setEventfds(device, { index, start: range.start, eventfds })
        await explained(armed, async () => {
          const facts = await irqFacts(this.#kernel, device.name, device.armed.nameOf(index))
          return [...judgeIrqs(facts), ...ruledOut('vectors-not-there' as const)]
        })
      } catch (error) {
        // A kernel that fails in the middle has taken some of the former eventfds away.
        if (!isFirst) await this.#detach(device, irq, range).catch(() => undefined)
        throw error
      }
      device.armed.arm(index, range, listener, total)
    })
  }

  /** The kernel signals them, or for REQ and ERR the daemon. */
  async #setEventfds(
    device: OpenDevice,
    set: { readonly index: number; readonly start: number; readonly eventfds: readonly number[] },
  ): Promise<void> {
    const [eventfd] = set.eventfds
    if (eventfd === undefined || !device.signals.has(set.index))
      await armIrqs(this.#kernel, device.fd, set)
    else device.signals.share(set.index, eventfd)
  }

  async #disable(device: OpenDevice, index: number): Promise<void> {
    if (device.signals.has(index)) device.signals.unshare(index)
    else await disableIrqs(this.#kernel, device.fd, index)
    device.armed.disable(index)
  }

  /** Runs in the lane of the device. The kernel knows no vectors beyond those that it allocated. */
  async #detach(device: OpenDevice, irq: IrqIndex, { start, count }: VectorRange): Promise<void> {
    const { index } = irq
    // What has one vector is disabled by detaching it.
    if (irq.count === 1) return this.#disable(device, index)
    const known = Math.min(start + count, device.armed.allocated(index)) - start
    if (known <= 0) return
    await armIrqs(this.#kernel, device.fd, { index, start, eventfds: Array(known).fill(-1) })
    device.armed.detach(index, { start, count: known })
  }

  /** Disarm what a stream still hears; the index is disabled with the last of its vectors. */
  async #endStream(device: OpenDevice, irq: IrqIndex, listener: IrqListener): Promise<void> {
    await device.lane.run(async () => {
      if (device.isClosed) return
      const { ranges, hasOthers } = device.armed.heardBy(irq.index, listener)
      if (ranges.length > 0 && !hasOthers) {
        return this.#disable(device, irq.index).catch(() => undefined)
      }
      for (const range of ranges) await this.#detach(device, irq, range).catch(() => undefined)
    })
  }
}

function createEventfds(count: number): number[] {
  const fds: number[] = []
  for (let n = 0; n < count; n += 1) {
    const fd = eventfdCreate()
    if (fd < 0) {
      for (const made of fds) sys.closeSync(made)
      throw refusal('eventfd', fd, `make ${count} eventfds`)
    }
    fds.push(fd)
  }
  return fds
}

function requireVectors(
  device: OpenDevice,
  vectors: Vectors,
): { readonly irq: IrqIndex; readonly range: VectorRange } {
  const irq = device.irq(vectors.index)
  const { start } = vectors
  const count = vectors.count === 0 ? irq.count - start : vectors.count
  if (start < irq.count && count > 0 && start + count <= irq.count) {
    return { irq, range: { start, count } }
  }
  throw new VfiodError(
    'NO_SUCH_IRQ',
    `Cannot use ${count} vectors from ${start} of IRQ index ${irq.index} of ${device.name}: it has ${irq.count}`,
    { field: start < irq.count ? 'count' : 'start' },
  )
}

function requireVector(device: OpenDevice, irq: IrqIndex, vector: number): void {
  if (vector < irq.count) return
  throw new VfiodError(
    'NO_SUCH_IRQ',
    `Cannot use vector ${vector} of IRQ index ${irq.index} of ${device.name}: it has ${irq.count}`,
    { field: 'vector' },
  )
}

function requireMaskable(device: OpenDevice, irq: IrqIndex): void {
  if (irq.isMaskable) return
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot mask IRQ index ${irq.index} of ${device.name}: it is not maskable`,
    { field: 'index' },
  )
}

/** A packet has all of them, or where that are too many, some. */
function requireEventfds(
  device: OpenDevice,
  irq: IrqIndex,
  { fds, needed }: { readonly fds: readonly number[]; readonly needed: number },
): void {
  const isPart = needed > LIMITS.fdsPerPacket && fds.length > 0 && fds.length <= needed
  if ((fds.length === needed || isPart) && fds.every(isEventfd)) return
  const how = needed > LIMITS.fdsPerPacket ? `, at most ${LIMITS.fdsPerPacket} in a packet` : ''
  throw new VfiodError(
    'BAD_ARGUMENT',
    `Cannot take the eventfds of IRQ index ${irq.index} of ${device.name}: ${fds.length} fds arrived; send ${needed} eventfds${how}`,
    { field: 'fds' },
  )
}
