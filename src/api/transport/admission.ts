/**
 * Which connections are served. Each identity may have as many as its quota says, and all together
 * as many as the whole, so that no identity takes the places of the others. A connection beyond that is
 * not dropped in silence: its first call of whatever kind, or its first packet on the fd channel, is
 * answered with LIMIT_REACHED, and then it is closed. A few of an identity may stand waiting to be told so; those
 * beyond them are closed unheard, and so are those of an identity, or of a host, that come too fast.
 */

import { Buckets, type Flow } from '../../base/bucket.ts'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import type { Quotas } from '../../domain/identity/quotas.ts'
import type { Payer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'

/** How long a refused connection stays open for what it is told why. */
export const REFUSED_MS = 5000

/** Refused connections that wait for their call, of one account and of all. */
const WAITING_PER_ACCOUNT = 8
const WAITING_MAX = 64

export interface Admitted {
  /** What every call is answered with; undefined when the connection is served. */
  readonly refusal: VfiodError | undefined
  /** The connection is closed. */
  leave(): void
}

type Who = Pick<Payer, 'identity' | 'account'>

export class Admission {
  readonly #quotas: Quotas
  readonly #log: Log
  readonly #rate: Buckets
  readonly #logRate: Buckets
  /** Refused connections that are still open, by account. */
  readonly #waiting = new Map<string, number>()

  /** `now` answers milliseconds of a clock that does not jump. */
  constructor(parts: {
    readonly quotas: Quotas
    readonly log: Log
    readonly now?: (() => number) | undefined
  }) {
    this.#rate = new Buckets(parts.now)
    this.#logRate = new Buckets(parts.now)
    this.#quotas = parts.quotas
    this.#log = parts.log
  }

  /** Takes a place for a connection of this identity; undefined when it is to be closed unheard. */
  admit(payer: Payer): Admitted | undefined {
    if (this.#comesTooOften(payer)) {
      this.#logTooOften(payer)
      return undefined
    }
    try {
      const charge = this.#quotas.charge(payer, PLACE)
      return { refusal: undefined, leave: () => charge.release() }
    } catch (error) {
      if (error instanceof VfiodError) return this.#refuse(payer, error)
      throw error
    }
  }

  /** Whether a connection from this host is to be heard before anything is known of it. */
  hears(host: string): boolean {
    if (this.#rate.take(host, RATE) === 0 && this.#rate.take('hosts', RATE_OF_ALL) === 0)
      return true
    this.#logTooOften({ identity: host, account: host })
    return false
  }

  /** An administrator gets in whatever the others do. */
  #comesTooOften({ account, grant }: Payer): boolean {
    if (this.#rate.take(account, RATE) > 0) return true
    return grant.role !== 'admin' && this.#rate.take('', RATE_OF_ALL) > 0
  }

  logHungUp({ identity, account }: Who): void {
    if (this.#isLogged(account))
      this.#log.info({ identity }, 'connection closed: its client has hung up')
  }

  #logTooOften({ identity, account }: Who): void {
    const { perSecond } = RATE
    if (this.#isLogged(account))
      this.#log.warn({ identity, perSecond }, 'connections refused: too many in a short time')
  }

  /** At most a line a second: there may be thousands. */
  #isLogged(account: string): boolean {
    return this.#logRate.take(account, { perSecond: 1, burst: 1 }) === 0
  }

  #refuse({ identity, account }: Payer, refusal: VfiodError): Admitted | undefined {
    const { reason, message, details } = refusal
    const waiting = this.#waiting.get(account) ?? 0
    const all = [...this.#waiting.values()].reduce((sum, count) => sum + count, 0)
    const isHeard = waiting < WAITING_PER_ACCOUNT && all < WAITING_MAX
    const limit = details.quota?.limit
    this.#log.warn({ identity, reason, limit, isHeard, refusal: message }, 'connection refused')
    if (!isHeard) return undefined
    this.#waiting.set(account, waiting + 1)
    return { refusal, leave: () => this.#leave(account) }
  }

  #leave(account: string): void {
    const waiting = (this.#waiting.get(account) ?? 0) - 1
    if (waiting > 0) this.#waiting.set(account, waiting)
    else this.#waiting.delete(account)
  }
}

/** Who has an address: the network of 64 bits that a host has with IPv6. */
export function hostOf(address: string): string {
  const mapped = /^::ffff:([0-9.]+)$/.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  if (!address.includes(':')) return address
  const [front = '', back] = (address.split('%', 1)[0] ?? '').split('::')
  const groups = front === '' ? [] : front.split(':')
  const rest = back === undefined || back === '' ? [] : back.split(':')
  const zeros = Array.from({ length: Math.max(0, 8 - groups.length - rest.length) }, () => '0')
  return `${[...groups, ...zeros, ...rest].slice(0, 4).join(':')}::/64`
}

const RATE: Flow = { perSecond: LIMITS.connectionsPerSecond, burst: LIMITS.connectionsAtOnce }

const RATE_OF_ALL: Flow = {
  perSecond: LIMITS.connectionsPerSecondOfAll,
  burst: LIMITS.connectionsAtOnceOfAll,
}

const PLACE = { connections: 1n } as const
