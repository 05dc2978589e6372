/**
 * Handing over: everything a client owns goes to another mm, which may be the same process after an
 * exec. The owner asks for a token with a deadline; the client that presents it in time is the next
 * owner.
 *
 *     offered --adopted--> the resources have a new owner
 *        |  \--owner gone--> orphaned --adopted--> the same
 *        |                       \--deadline--> released
 *        \--deadline--> as if nothing was offered
 *
 * Devices go on with DMA throughout; a migration session and armed eventfds go along.
 */

import { randomBytes } from 'node:crypto'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { Deadline } from '../../os/deadline.ts'
import type { Counts } from '../state/changes.ts'
import type { OwnerRecord } from '../state/records.ts'
import { type Client, ownerOf } from './clients.ts'

interface Offer {
  readonly token: string
  readonly owner: OwnerRecord
  readonly deadlineMs: number
  readonly deadline: Deadline
  /** Why the owner is gone, once it is. */
  orphaned: string | undefined
}

export interface HandoverParts {
  /** Give everything that one client owns to another; throws and changes nothing where it cannot. */
  readonly transfer: (from: OwnerRecord, to: Client) => Promise<Counts>
  /** Release what a client owns, its offer having expired. */
  readonly release: (owner: OwnerRecord, why: string) => Promise<void>
  readonly offered: (owner: OwnerRecord, deadlineMs: number) => void
  /** The owner is gone, and its offer keeps what it owned. */
  readonly orphaned: (owner: OwnerRecord, why: string) => void
  /** The owner is there again, while its offer stands. */
  readonly returned: (owner: OwnerRecord) => void
  /** An offer ended without being taken. */
  readonly expired: (owner: OwnerRecord, isOrphaned: boolean) => void
}

export class Handovers {
  readonly #parts: HandoverParts
  /** By owner: one offer at a time. */
  readonly #offers = new Map<string, Offer>()

  constructor(parts: HandoverParts) {
    this.#parts = parts
  }

  /** A token for everything the client owns; the one it had before is void. */
  offer(client: OwnerRecord, wantedMs: number): { token: string; deadlineMs: number } {
    const owner = ownerOf(client)
    this.withdraw(owner)
    const deadlineMs = Math.min(wantedMs || LIMITS.handoverMs, LIMITS.handoverMs)
    const token = randomBytes(32).toString('hex')
    const deadline = new Deadline(deadlineMs, () => this.#expire(owner))
    this.#offers.set(owner.id, { token, owner, deadlineMs, deadline, orphaned: undefined })
    this.#parts.offered(owner, deadlineMs)
    return { token, deadlineMs }
  }

  /** Become the owner of what a token is for. It works once; a refused adoption does not use it up. */
  async adopt(client: Client, token: string): Promise<Counts> {
    const offer = [...this.#offers.values()].find((each) => each.token === token)
    if (offer === undefined) throw badToken()
    if (offer.owner.id === client.id) {
      throw new VfiodError(
        'BAD_ARGUMENT',
        'Cannot adopt: the caller is the owner already; the next owner presents the token',
        { field: 'token' },
      )
    }
    // Out of the way before anything is awaited, so that a second presenter finds it used.
    this.#offers.delete(offer.owner.id)
    try {
      const moved = await this.#parts.transfer(offer.owner, client)
      offer.deadline.cancel()
      return moved
    } catch (error) {
      this.#offers.set(offer.owner.id, offer)
      throw error
    }
  }

  /** The owner is gone. True when an offer keeps its resources until the deadline. */
  keeps(owner: OwnerRecord, why: string): boolean {
    const offer = this.#offers.get(owner.id)
    if (offer === undefined) return false
    offer.orphaned = why
    this.#parts.orphaned(offer.owner, why)
    return true
  }

  /** Forget the offer of one client: its token is void. False where it has none. */
  withdraw(owner: OwnerRecord): boolean {
    this.#offers.get(owner.id)?.deadline.cancel()
    return this.#offers.delete(owner.id)
  }

  /** The owner is there again: what its offer kept is its own, and stays when the offer ends. */
  returned(owner: OwnerRecord): void {
    const offer = this.#offers.get(owner.id)
    if (offer?.orphaned === undefined) return
    offer.orphaned = undefined
    this.#parts.returned(offer.owner)
  }

  /** Forget every offer: the daemon releases everything. */
  clear(): void {
    for (const { owner } of this.#offers.values()) this.withdraw(owner)
  }

  #expire(owner: OwnerRecord): void {
    const offer = this.#offers.get(owner.id)
    if (offer === undefined) return
    this.#offers.delete(owner.id)
    this.#parts.expired(owner, offer.orphaned !== undefined)
    if (offer.orphaned === undefined) return
    const why = `${offer.orphaned}, and no client adopted within ${offer.deadlineMs} ms`
    void this.#parts.release(owner, why)
  }
}

const badToken = (): VfiodError =>
  new VfiodError(
    'BAD_TICKET',
    'Cannot adopt: the token is unknown, used or expired; the owner asks for a new one',
    { field: 'token' },
  )
