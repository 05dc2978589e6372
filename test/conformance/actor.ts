/**
 * A process on one side: it carries out operations and says in text what came of each: the answer,
 * and every byte that changed. Texts of two sides are equal when the kernels are.
 */

import { VFIO_GROUP_GET_DEVICE_FD } from '../../src/abi/group.ts'
import { ERRNO, errnoName } from '../../src/base/errno.ts'
import { eventfdCreate, eventfdRead, eventfdSignal } from '../../src/os/eventfd.ts'
import { ArgumentMaker, difference } from './argument.ts'
import { callOf } from './calls.ts'
import type { CallOp, IoctlOp, Slot, Value } from './operation.ts'
import type { Side } from './side.ts'

export const EVENTFDS: readonly Slot[] = ['e0', 'e1', 'e2', 'e3']
/** More than any process can have open. */
const SHUT_FD = 1 << 30
const PATIENCE_MS = 300
const DMA_PATIENCE_MS = 5000

const FIRST_DMA_REGISTER = 0x80n
const DMA_COMMAND = 0x98n
const FACTORIAL = 8
const EDU_STATUS = 0x20n
const EDU_BUFFER = 0x40000

const answerText = (answer: number): string => (answer < 0 ? `-${errnoName(-answer)}` : `${answer}`)

const sentinel = (length: number): Uint8Array => new Uint8Array(length).fill(0xa5)

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))

export class Actor {
  readonly side: Side
  readonly #eventfds: ReadonlyMap<Slot, number>
  readonly #slots = new Map<Slot, number>()
  /** What was signalled and not asked for yet. */
  readonly #counts = new Map<Slot, bigint>()
  readonly #arguments: ArgumentMaker

  constructor(side: Side, eventfds: readonly Slot[] = []) {
    this.side = side
    this.#eventfds = new Map(eventfds.map((slot) => [slot, eventfdCreate()]))
    this.#arguments = new ArgumentMaker(side, (value) => this.#resolve(value))
  }

  begin(): void {
    for (const fd of this.#eventfds.values()) eventfdRead(fd)
    this.#counts.clear()
  }

  /** Forgets its fds, and says which they were. */
  end(): number[] {
    const fds = [...this.#slots.values()]
    this.#slots.clear()
    return fds
  }

  /** The file in a slot that calls have put there. */
  file(slot: Slot): number | undefined {
    return this.#slots.get(slot)
  }

  /** What an fd that was opened, or an errno, comes to. */
  async install(slot: Slot, answer: number): Promise<string> {
    if (answer < 0) return answerText(answer)
    await this.#replace(slot, answer)
    return 'fd'
  }

  /** Whether the operation is about something that is there. */
  isLive(op: CallOp): boolean {
    if (op.op === 'open' || op.op === 'locked' || op.op === 'fill' || op.op === 'exit') return true
    return this.#fd(op.fd) >= 0
  }

  async act(op: CallOp, other?: Actor): Promise<string> {
    const outcome = await this.#act(op)
    this.side.rest()
    if (mayFire(op)) this.#listen(other)
    return outcome
  }

  /**
   * Takes what was signalled. Interrupts of a real device arrive in their own time, and one that is
   * acknowledged before that never does: so it waits for as many as the other side has.
   */
  #listen(other: Actor | undefined): void {
    const until = Date.now() + PATIENCE_MS
    do {
      for (const [slot, fd] of this.#eventfds) {
        const got = eventfdRead(fd)
        if (typeof got === 'bigint') this.#counts.set(slot, this.#countOf(slot) + got)
      }
    } while (other && this.#hasLess(other) && Date.now() < until)
  }

  #hasLess(other: Actor): boolean {
    return EVENTFDS.some((slot) => this.#countOf(slot) < other.#countOf(slot))
  }

  #countOf(slot: Slot): bigint {
    return this.#counts.get(slot) ?? 0n
  }

  async #act(op: CallOp): Promise<string> {
    const { side } = this
    switch (op.op) {
      case 'open': {
        const location = side.location(op.place)
        return this.install(op.into, await side.open(op.cdev ? location.cdev : location.path))
      }
      case 'close': {
        const answer = await side.close(this.#fd(op.fd))
        this.#slots.delete(op.fd)
        return answerText(answer)
      }
      case 'dup': {
        const fd = this.#slots.get(op.fd)
        return fd === undefined ? '-EBADF' : this.install(op.into, await side.dup(fd))
      }
      case 'ioctl':
        return this.#ioctl(op)
      case 'value':
        return answerText(await side.ioctl(this.#fd(op.fd), callOf(op.call).request, op.value))
      case 'device': {
        const name = new TextEncoder().encode(`${side.location(op.place).name}${op.suffix ?? ''}\0`)
        const answer = await side.ioctl(this.#fd(op.fd), VFIO_GROUP_GET_DEVICE_FD.number, name)
        return this.install(op.into, answer)
      }
      case 'pread': {
        const into = sentinel(op.length)
        const answer = await side.pread(this.#fd(op.fd), into, regionOffset(op.region, op.at))
        return withChanges(answer, difference(sentinel(op.length), into))
      }
      case 'pwrite': {
        const offset = regionOffset(op.region, op.at)
        const answer = await side.pwrite(this.#fd(op.fd), bytesOf(op.hex), offset)
        if (op.region === 0 && op.at <= FACTORIAL && op.at + op.hex.length / 2 >= FACTORIAL + 4)
          await this.#computed(this.#fd(op.fd))
        return answerText(answer)
      }
      case 'read': {
        const into = sentinel(op.length)
        const answer = await side.read(this.#fd(op.fd), into)
        return withChanges(answer, difference(sentinel(op.length), into))
      }
      case 'write':
        return answerText(await side.write(this.#fd(op.fd), bytesOf(op.hex)))
      case 'pipe': {
        const bytes = new Uint8Array(op.length)
        const got = await side.read(this.#fd(op.fd), bytes)
        if (got <= 0) return answerText(got)
        const put = await side.write(this.#fd(op.to), bytes.subarray(0, got))
        return `${got} ${answerText(put)}`
      }
      case 'count':
        return this.#count(op.fd)
      case 'signal':
        return answerText(eventfdSignal(this.#eventfds.get(op.fd) ?? -1))
      case 'dma':
        return this.#dma(op)
      case 'fill':
        side.memory.bytes(op.at, op.length).fill(op.byte)
        return '0'
      case 'locked':
        return `${side.locked()}`
      case 'exit':
        return this.#exit(op.order)
    }
  }

  async #ioctl(op: IoctlOp): Promise<string> {
    const { memory } = this.side
    if (op.poke) {
      const bytes = bytesOf(op.poke[1])
      memory.bytes(op.poke[0], bytes.length).set(bytes)
    }
    const watched = op.look && memory.bytes(...op.look)
    const before = watched?.slice()
    const argument = this.#arguments.make(op)
    const answer = await this.side.ioctl(this.#fd(op.fd), argument.call.request, argument.passed)
    const fd = argument.fd()
    if (fd !== undefined) await this.#replace(op.into ?? 'f0', fd)
    // A copy that ends at a page that is not there leaves a part behind: how much is not promised.
    if (answer === -ERRNO.EFAULT) return answerText(answer)
    const parts = [withChanges(answer, argument.changes())]
    if (fd !== undefined) parts.push('fd')
    if (watched && before) {
      const change = difference(before, watched)
      if (change !== '') parts.push(`memory ${change}`)
    }
    return parts.join(' ')
  }

  #count(slot: Slot): string {
    this.#listen(undefined)
    const count = this.#countOf(slot)
    this.#counts.delete(slot)
    return `${count}`
  }

  async #dma(op: Extract<CallOp, { op: 'dma' }>): Promise<string> {
    const fd = this.#fd(op.fd)
    const ram = this.side.memory.of('ram').bytes
    const before = ram.slice()
    const buffer = BigInt(EDU_BUFFER + op.offset)
    const [source, destination] = op.toMemory
      ? [buffer, BigInt(op.iova)]
      : [BigInt(op.iova), buffer]
    const registers = [source, destination, BigInt(op.length), op.toMemory ? 3n : 1n]
    const answers: number[] = []
    for (const [index, value] of registers.entries()) {
      const bytes = new Uint8Array(new BigUint64Array([value]).buffer)
      answers.push(await this.side.pwrite(fd, bytes, FIRST_DMA_REGISTER + BigInt(index * 8)))
    }
    const command = new Uint8Array(8)
    const until = Date.now() + DMA_PATIENCE_MS
    do {
      this.side.rest()
      const answer = await this.side.pread(fd, command, DMA_COMMAND)
      if (answer < 0) break
    } while (((command[0] ?? 0) & 1) !== 0 && Date.now() < until)
    const change = difference(before, ram)
    return `${answers.map(answerText).join(' ')} memory ${change}`
  }

  /** edu computes in a thread of its own. */
  async #computed(fd: number): Promise<void> {
    const status = new Uint8Array(4)
    const until = Date.now() + PATIENCE_MS
    do {
      this.side.rest()
      if ((await this.side.pread(fd, status, EDU_STATUS)) < 0) return
    } while (((status[0] ?? 0) & 1) !== 0 && Date.now() < until)
  }

  async #exit(order: number): Promise<string> {
    const left = [...this.#slots.values()]
    this.#slots.clear()
    for (let seed = order; left.length > 0; seed = (seed * 31 + 7) >>> 0) {
      const [fd = -1] = left.splice(seed % left.length, 1)
      await this.side.close(fd)
    }
    return '0'
  }

  #fd(slot: Slot): number {
    return this.#slots.get(slot) ?? this.#eventfds.get(slot) ?? -1
  }

  async #replace(slot: Slot, fd: number): Promise<void> {
    const old = this.#slots.get(slot)
    this.#slots.set(slot, fd)
    if (old !== undefined) await this.side.close(old)
  }

  #resolve(value: Value): number | bigint {
    if (typeof value === 'number') return value
    if (value === '@none') return -1
    if (value === '@shut') return SHUT_FD
    if (value.startsWith('@')) return this.#fd(value.slice(1))
    return value.startsWith('0x') ? BigInt(value) : this.side.memory.address(value)
  }
}

/** What can cause an interrupt, at once or by letting one through that waited. */
const mayFire = (op: CallOp): boolean =>
  op.op === 'pwrite' ||
  op.op === 'pread' ||
  op.op === 'dma' ||
  op.op === 'signal' ||
  (op.op === 'ioctl' && op.call === 'SET_IRQS')

const regionOffset = (region: number, at: number): bigint => (BigInt(region) << 40n) + BigInt(at)

const withChanges = (answer: number, changes: string): string =>
  changes === '' ? answerText(answer) : `${answerText(answer)} ${changes}`
