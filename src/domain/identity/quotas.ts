/**
 * The usage of each account against its quota, and of all accounts against the total. An account is a
 * uid or the name in a certificate, so that the processes of one user share its quota, or what a rule of
 * the policy says that its identities share.
 *
 * What records cost is counted by the state. The rest, streams and what is about to become a record,
 * is held by charges: a charge is taken before the work is done and released when the work has become
 * a record, has failed, or has ended.
 */

import { VfiodError } from '../../base/error.ts'
import {
  type DefaultQuotas,
  type Grant,
  limitOf,
  QUOTAS,
  type Quota,
  type QuotaName,
  shareOf,
} from '../../rules/policy.ts'
import type { State } from '../state/state.ts'
import { type Amounts, amountsOf, Books, Tally } from '../state/usage.ts'

/** The holder of a quota: a client, or a peer that has not become a client yet. */
export interface QuotaHolder {
  /** Whose quotas these are: a uid, the name in a certificate, or a rule that many share. */
  readonly account: string
  readonly grant: Pick<Grant, 'quota' | 'role'>
}

export interface Usage {
  readonly name: QuotaName
  readonly current: bigint
  readonly max: bigint
}

/** How the quotas read in messages. */
const TEXT: Record<QuotaName, string> = {
  locked_bytes: 'bytes mapped for devices',
  mappings: 'mappings',
  address_spaces: 'address spaces',
  memories: 'memory objects',
  memory_bytes: 'bytes of memory objects',
  allocated_bytes: 'bytes of allocated memory',
  devices: 'open devices',
  sessions: 'data transfer sessions',
  streams: 'streams',
  watches: 'watches',
  fds: 'file descriptors of the daemon',
  connections: 'connections',
  processes: 'processes that have connected',
  calls_per_second: 'calls per second',
}

/** Amounts that are held until `release`, which may be called more than once. */
export class Charge {
  readonly #quotas: Quotas
  #payer: QuotaHolder
  readonly #books: Books
  readonly #held = new Tally()

  constructor(quotas: Quotas, payer: QuotaHolder, books: Books) {
    this.#quotas = quotas
    this.#payer = payer
    this.#books = books
  }

  /** Hold more, or throw LIMIT_REACHED and hold the former amounts. */
  add(amounts: Amounts): void {
    this.#quotas.requireRoom(this.#payer, amounts)
    this.#held.add(amounts)
    this.#books.add(this.#payer.account, amounts)
  }

  /** Hold so much less. */
  giveBack(amounts: Amounts): void {
    this.#held.add(amounts, -1n)
    this.#books.add(this.#payer.account, amounts, -1n)
  }

  /** Another account holds them from now on, whose room was looked at before. */
  moveTo(account: string): void {
    const { amounts } = this.#held
    this.#books.add(this.#payer.account, amounts, -1n)
    this.#payer = { ...this.#payer, account }
    this.#books.add(account, amounts)
  }

  release(): void {
    if (!this.#held.isZero) this.giveBack(this.#held.amounts)
  }
}

export class Quotas {
  readonly #state: State
  readonly #total: () => Quota
  readonly #defaults: DefaultQuotas
  readonly #held = new Books()

  /** `total` is asked at each call: a policy may be reloaded. */
  constructor(state: State, total: () => Quota, defaults: DefaultQuotas) {
    this.#state = state
    this.#total = total
    this.#defaults = defaults
  }

  /** How much of one an account may use. */
  limitOf({ grant }: Pick<QuotaHolder, 'grant'>, name: QuotaName): bigint {
    return limitOf(grant, name, this.#defaults)
  }

  /** How much of one all together may use when one of this role asks for more. */
  limitOfAll(name: QuotaName, role: Grant['role']): bigint {
    return shareOf(this.#totalOf(name), role)
  }

  /** Hold all of the amounts, or throw LIMIT_REACHED and hold none. */
  charge(payer: QuotaHolder, amounts: Amounts): Charge {
    const charge = new Charge(this, payer, this.#held)
    charge.add(amounts)
    return charge
  }

  /** Throw LIMIT_REACHED unless the payer, and all together, may use so much more. */
  requireRoom(payer: QuotaHolder, amounts: Amounts): void {
    this.#requireRoom(payer, amounts, { isNew: true })
  }

  /** Throw LIMIT_REACHED unless the payer may take over from another what the amounts say. */
  requireRoomToAdopt(from: QuotaHolder['account'], to: QuotaHolder, amounts: Amounts): void {
    if (from !== to.account) this.#requireRoom(to, amounts, { isNew: false })
  }

  /** What its account uses, by quota. */
  usage(payer: QuotaHolder): Usage[] {
    return QUOTAS.map((name) => ({
      name,
      current: this.#usedBy(payer.account, name),
      max: this.limitOf(payer, name),
    }))
  }

  /** What all identities use together. */
  totalUsage(): Usage[] {
    return QUOTAS.map((name) => ({
      name,
      current: this.#usedByAll(name),
      max: this.#totalOf(name),
    }))
  }

  /** What each account uses that uses something, by quota. */
  usageByAccount(): Map<string, Amounts> {
    const books = new Books()
    for (const [account, amounts] of this.#state.usageByAccount()) books.add(account, amounts)
    for (const [account, amounts] of this.#held) books.add(account, amounts)
    return new Map(books)
  }

  /** What moves from one account to another is not new to all together. */
  #requireRoom(payer: QuotaHolder, amounts: Amounts, { isNew }: { readonly isNew: boolean }): void {
    const { account, grant } = payer
    for (const [name, needed] of amountsOf(amounts)) {
      const current = this.#usedBy(account, name)
      requireBelow({ name, needed, current, max: this.limitOf(payer, name), of: account })
      if (!isNew) continue
      const all = this.#usedByAll(name)
      const share = this.limitOfAll(name, grant.role)
      const of =
        share === this.#totalOf(name) ? 'all clients' : 'all clients without the role admin'
      requireBelow({ name, needed, current: all, max: share, of })
    }
  }

  #usedBy(account: string, name: QuotaName): bigint {
    return this.#state.usageOf(account).of(name) + this.#held.of(account).of(name)
  }

  #usedByAll(name: QuotaName): bigint {
    return this.#state.totalUsage().of(name) + this.#held.total.of(name)
  }

  #totalOf(name: QuotaName): bigint {
    return this.#total()[name] ?? this.#defaults.total[name]
  }
}

function requireBelow(on: {
  readonly name: QuotaName
  readonly needed: bigint
  readonly current: bigint
  readonly max: bigint
  readonly of: string
}): void {
  const { name, needed, current, max, of } = on
  if (current + needed <= max) return
  throw new VfiodError(
    'LIMIT_REACHED',
    `Cannot take ${needed} more: the quota of ${of} is ${max} ${TEXT[name]} and ${current} are in use; release some, or raise ${name} in the policy`,
    { quota: { limit: `${name} of ${of}`, max, current, needed } },
  )
}
