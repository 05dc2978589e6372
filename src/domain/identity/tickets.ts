/**
 * Tickets: one-time rights to pass file descriptors, bound to the client that asked. gRPC cannot
 * carry fds, so an RPC answers with a ticket and the fd channel redeems it.
 */

import { randomBytes } from 'node:crypto'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { Deadline } from '../../os/deadline.ts'
import type { OwnerRecord } from '../state/records.ts'
import type { Client } from './clients.ts'

/** What redeeming a ticket gives: an answer, and fds for the client (the caller closes them). */
export interface Redeemed {
  readonly reply: Readonly<Record<string, string | number | boolean>>
  readonly fds: readonly number[]
  /** Set where more packets are to come: the ticket goes on, for this. */
  readonly rest?: Redeem
}

/** Takes over every fd, to keep or to close; on a throw it leaves them all to the caller. */
export type Redeem = (fds: readonly number[]) => Promise<Redeemed>

/** A ticket for receiving takes no fds, because it would not close them. */
export function requireNoFds(fds: readonly number[]): void {
  if (fds.length === 0) return
  throw new VfiodError(
    'BAD_ARGUMENT',
    `Cannot take ${fds.length} fds: the ticket is for receiving; send it alone`,
    { field: 'fds' },
  )
}

/** What a ticket is for: `{ act: 'register memory', object: { memoryId: 'ram' } }`. */
export interface TicketPurpose {
  readonly act: string
  readonly object: Readonly<Record<string, string | number>>
}

interface Entry {
  readonly client: Client
  readonly purpose: TicketPurpose
  readonly redeem: Redeem
  readonly expires: Deadline
}

export interface Ticket {
  readonly ticket: string
  readonly expiresInMs: number
}

export class Tickets {
  readonly #entries = new Map<string, Entry>()

  /** A ticket that lets only `client` run `redeem` once. */
  issue(client: Client, purpose: TicketPurpose, redeem: Redeem): Ticket {
    if (client.origin.kind === 'remote') {
      throw new VfiodError(
        'UNSUPPORTED',
        'Cannot issue a ticket: file descriptors do not pass to another host; call from a process of this one',
      )
    }
    const held = [...this.#entries.values()].filter((entry) => entry.client.id === client.id).length
    if (held >= LIMITS.ticketsPerClient) {
      throw new VfiodError(
        'LIMIT_REACHED',
        `Cannot issue a ticket: ${held} of ${LIMITS.ticketsPerClient} are open; use them or let them expire`,
        {
          quota: {
            limit: 'tickets of one client',
            max: BigInt(LIMITS.ticketsPerClient),
            current: BigInt(held),
            needed: 1n,
          },
          retryAfterMs: LIMITS.ticketMs,
        },
      )
    }
    const ticket = randomBytes(32).toString('hex')
    this.#keep(ticket, { client, purpose, redeem })
    return { ticket, expiresInMs: LIMITS.ticketMs }
  }

  /** What a ticket of the client is for; undefined where it has no such ticket. */
  purposeOf(client: Client, ticket: string): TicketPurpose | undefined {
    const entry = this.#entries.get(ticket)
    return entry?.client.id === client.id ? entry.purpose : undefined
  }

  /** Use a ticket up. Unknown, used, expired and foreign ones look the same to the caller. */
  async redeem(client: Client, ticket: string, fds: readonly number[]): Promise<Redeemed> {
    const entry = this.#entries.get(ticket)
    if (entry === undefined || entry.client.id !== client.id) {
      throw new VfiodError(
        'BAD_TICKET',
        'Cannot redeem the ticket: it is unknown, used, expired, or of another process; ask for a new one',
      )
    }
    this.#drop(ticket, entry)
    const redeemed = await entry.redeem(fds)
    if (redeemed.rest !== undefined) this.#keep(ticket, { ...entry, redeem: redeemed.rest })
    return redeemed
  }

  /** Void the unused tickets of a client. */
  releaseClient(client: OwnerRecord): void {
    for (const [ticket, entry] of this.#entries) {
      if (entry.client.id === client.id) this.#drop(ticket, entry)
    }
  }

  #keep(ticket: string, entry: Omit<Entry, 'expires'>): void {
    const expires = new Deadline(LIMITS.ticketMs, () => this.#entries.delete(ticket))
    this.#entries.set(ticket, { ...entry, expires })
  }

  #drop(ticket: string, entry: Entry): void {
    entry.expires.cancel()
    this.#entries.delete(ticket)
  }
}
