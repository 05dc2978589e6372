/**
 * Interrupts: as a stream of counts, or as eventfds of the client that the kernel signals without
 * the daemon in between. An index is armed for one or the other, by one caller at a time.
 */

import { VfiodError } from '../../base/error.ts'
import { Mailbox } from '../../base/mailbox.ts'
import {
  armIrqs,
  disableIrqs,
  type IrqIndex,
  maskIrq,
  triggerIrq,
  unmaskIrq,
} from '../../kernel/device-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import { refusal } from '../../kernel/refusal.ts'
import { eventfdCreate, eventfdRead, isEventfd } from '../../os/eventfd.ts'
import { sys } from '../../os/libc.ts'
import { unwatch, watch } from '../../os/poller.ts'
import type { Client } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { Redeemed, Ticket, Tickets } from '../identity/tickets.ts'
import { notOpen, type OpenDevice } from './device.ts'
import type { Devices } from './devices.ts'

export interface Vectors {
  readonly name: string
  readonly index: number
  readonly start: number
  /** All of the index when zero. */
  readonly count: number
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
    const { start, count } = requireVectors(device, vectors)
    const { index } = vectors
    const charge = this.#quotas.charge(client, { streams: 1n })
    const ends = device.until(signal)
    const raised = new Mailbox<RaisedIrq>({ join: joinIrqs })
    let eventfds: readonly number[] = []
    let isArmed = false
    try {
      eventfds = createEventfds(count)
      for (const [n, fd] of eventfds.entries()) {
        watch(fd, () => {
          const count = eventfdRead(fd)
          const vector = start + n
          if (typeof count === 'bigint') raised.push({ vector, count }, vector)
        })
      }
      await this.#arm(client, device, { index, start, eventfds, as: 'stream' })
      isArmed = true
      yield { kind: 'armed' }
      for await (const irq of raised.read(ends)) yield { kind: 'irq', ...irq }
      if (signal.aborted) return
      device.requireOwner(client)
      throw notOpen(device.name)
    } finally {
      if (isArmed) await this.#disarm(device, index)
      for (const fd of eventfds) {
        unwatch(fd)
        sys.closeSync(fd)
      }
      charge.release()
    }
  }

  /** A ticket for which the fd channel takes one eventfd per vector. */
  setEventfds(client: Client, vectors: Vectors): Ticket {
    const device = this.#devices.get(client, vectors.name)
    requireVectors(device, vectors)
    requireIdle(device, vectors.index)
    const { name, index } = vectors
    const purpose = { act: 'arm eventfds', object: { name, index } }
    return this.#tickets.issue(client, purpose, (fds) => this.#takeEventfds(client, vectors, fds))
  }

  /** Disarm every vector of an index; nothing happens to one that is not armed. */
  async disable(client: Client, name: string, index: number): Promise<void> {
    const device = this.#devices.get(client, name)
    device.irq(index)
    await device.run(client, async () => {
      if (!device.armed.has(index)) return
      await disableIrqs(this.#kernel, device.fd, index)
      device.armed.delete(index)
    })
  }

  async setMask(
    client: Client,
    at: {
      readonly name: string
      readonly index: number
      readonly vector: number
      readonly masked: boolean
    },
  ): Promise<void> {
    const device = this.#devices.get(client, at.name)
    const irq = device.irq(at.index)
    requireVector(device, irq, at.vector)
    if (!irq.isMaskable) {
      throw new VfiodError(
        'UNSUPPORTED',
        `Cannot mask IRQ index ${at.index} of ${at.name}: it is not maskable`,
        { field: 'index' },
      )
    }
    requireArmed(device, at.index)
    const act = at.masked ? maskIrq : unmaskIrq
    await device.run(client, () => act(this.#kernel, device.fd, at))
  }

  /** Raise a vector from software. */
  async trigger(
    client: Client,
    at: { readonly name: string; readonly index: number; readonly vector: number },
  ): Promise<void> {
    const device = this.#devices.get(client, at.name)
    requireVector(device, device.irq(at.index), at.vector)
    requireArmed(device, at.index)
    await device.run(client, () => triggerIrq(this.#kernel, device.fd, at))
  }

  async #takeEventfds(client: Client, vectors: Vectors, fds: readonly number[]): Promise<Redeemed> {
    const device = this.#devices.get(client, vectors.name)
    const { start, count } = requireVectors(device, vectors)
    if (fds.length !== count || !fds.every(isEventfd)) {
      throw new VfiodError(
        'BAD_ARGUMENT',
        `Cannot arm IRQ index ${vectors.index} of ${vectors.name}: ${fds.length} fds arrived; send ${count} eventfds`,
        { field: 'fds' },
      )
    }
    await this.#arm(client, device, { index: vectors.index, start, eventfds: fds, as: 'eventfds' })
    // The kernel holds the counters; the daemon's copies have done their part.
    for (const fd of fds) sys.closeSync(fd)
    return { reply: { name: vectors.name, vectors: count }, fds: [] }
  }

  #arm(
    client: Client,
    device: OpenDevice,
    what: {
      readonly index: number
      readonly start: number
      readonly eventfds: readonly number[]
      readonly as: 'stream' | 'eventfds'
    },
  ): Promise<void> {
    return device.run(client, async () => {
      requireIdle(device, what.index)
      await armIrqs(this.#kernel, device.fd, what)
      device.armed.set(what.index, what.as)
    })
  }

  async #disarm(device: OpenDevice, index: number): Promise<void> {
    await device.lane.run(async () => {
      if (device.isClosed || device.armed.get(index) !== 'stream') return
      device.armed.delete(index)
      await disableIrqs(this.#kernel, device.fd, index).catch(() => undefined)
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

function requireVectors(device: OpenDevice, vectors: Vectors): { start: number; count: number } {
  const irq = device.irq(vectors.index)
  const { start } = vectors
  const count = vectors.count === 0 ? irq.count - start : vectors.count
  if (start < irq.count && count > 0 && start + count <= irq.count) return { start, count }
  throw new VfiodError(
    'NO_SUCH_IRQ',
    `Cannot arm ${count} vectors from ${start} of IRQ index ${irq.index} of ${device.name}: it has ${irq.count}`,
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

function requireIdle(device: OpenDevice, index: number): void {
  const as = device.armed.get(index)
  if (as === undefined) return
  throw new VfiodError(
    'DEVICE_IN_USE',
    `Cannot arm IRQ index ${index} of ${device.name}: it is armed already, as ${as === 'stream' ? 'a stream' : 'eventfds'}; end that first`,
    { resource: { type: 'irq', name: `${device.name}#${index}` } },
  )
}

function requireArmed(device: OpenDevice, index: number): void {
  if (device.armed.has(index)) return
  throw new VfiodError(
    'NO_SUCH_IRQ',
    `Cannot use IRQ index ${index} of ${device.name}: it is not armed; watch it or set eventfds first`,
    { field: 'index' },
  )
}
