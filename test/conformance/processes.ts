/**
 * The processes of a sequence on one side: the first, which goes through all of it, and the second
 * from when it is spawned until it is killed.
 */

import { Actor, EVENTFDS } from './actor.ts'
import { difference } from './argument.ts'
import type { CallOp, Op, Slot } from './operation.ts'
import type { FirstSide, SecondSide } from './side.ts'

/** What an operation of a process that is not there comes to. */
const NOBODY = 'nobody'

const isCall = (op: Op): op is CallOp => op.op !== 'spawn' && op.op !== 'kill' && op.op !== 'send'

export class Processes {
  readonly #side: FirstSide
  readonly #first: Actor
  #second: { readonly actor: Actor; readonly side: SecondSide } | undefined

  constructor(side: FirstSide) {
    this.#side = side
    side.memory.other = side.secondMemory
    side.secondMemory.other = side.memory
    this.#first = new Actor(side, EVENTFDS)
  }

  begin(lockPages: number | null): void {
    this.#side.begin(lockPages)
    this.#first.begin()
  }

  end(): void {
    this.#kill()
    this.#side.end(this.#first.end())
  }

  /** Whether the operation is about something that is there. */
  isLive(op: Op): boolean {
    if (op.op === 'spawn') return this.#second === undefined
    if (op.op === 'kill') return this.#second !== undefined
    const actor = this.actor(op)
    if (op.op === 'send') return this.#second !== undefined && actor?.file(op.fd) !== undefined
    return actor?.isLive(op) ?? false
  }

  async act(op: Op, other?: Processes): Promise<string> {
    if (op.op === 'dma') return this.#dma(op)
    if (isCall(op)) return this.actor(op)?.act(op, other?.actor(op)) ?? NOBODY
    const outcome = await this.#between(op)
    this.#side.rest()
    return outcome
  }

  /** Who does it, if they are there. */
  actor({ by }: Op): Actor | undefined {
    return by === 'second' ? this.#second?.actor : this.#first
  }

  /** Memory of the other process may be what the device reaches. */
  async #dma(op: Extract<CallOp, { op: 'dma' }>): Promise<string> {
    const { side } = (op.by === 'second' ? this.#first : this.#second?.actor) ?? {}
    const ram = side?.memory.of('ram').bytes
    const before = ram?.slice()
    const outcome = (await this.actor(op)?.act(op)) ?? NOBODY
    const change = ram && before ? difference(before, ram) : ''
    return change === '' ? outcome : `${outcome} other ${change}`
  }

  async #between(op: Exclude<Op, CallOp>): Promise<string> {
    if (op.op === 'spawn') return this.#spawn(op.fds)
    if (this.#second === undefined) return NOBODY
    if (op.op === 'kill') return this.#kill()
    const { actor, side } = this.#second
    const isFromSecond = op.by === 'second'
    const [from, to] = isFromSecond ? [actor, this.#first] : [this.#first, actor]
    const fd = from.file(op.fd)
    if (fd === undefined) return '-EBADF'
    return to.install(op.into, isFromSecond ? side.send(fd) : side.receive(fd))
  }

  async #spawn(slots: readonly Slot[]): Promise<string> {
    if (this.#second !== undefined) return 'there is one'
    const side = this.#side.spawn()
    const actor = new Actor(side)
    this.#second = { actor, side }
    for (const slot of slots) {
      const fd = this.#first.file(slot)
      if (fd !== undefined) await actor.install(slot, side.receive(fd))
    }
    return '0'
  }

  #kill(): string {
    this.#second?.side.kill()
    this.#second = undefined
    return '0'
  }
}
