/**
 * One way for everything that a peer asks, whether it comes as an HTTP/2 call or as a packet on the
 * fd channel: role, rate, live process, turn, client, in flight, lease, act, one line in the log. The
 * connection was admitted before (transport/admission.ts), and knows its peer.
 */
import { VfiodError } from '../../base/error.ts'
import type { Client } from '../../domain/identity/clients.ts'
import { onAccountOf } from '../../os/thread-shares.ts'
import { toVfiodError } from '../../wire/status.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import type { InFlightCalls } from './in-flight.ts'
import { requireRole } from './method-policy.ts'
import { logOutcome, type Method } from './outcome.ts'
import type { Rates } from './rate.ts'
import { Turns } from './turns.ts'

/** What a handler knows besides the request. */
export interface CallContext {
  readonly client: Client
  /** Names the connection that the call came on. */
  readonly connection: string
  /** Aborted when the call is cancelled, its deadline passes, or the client is gone. */
  readonly signal: AbortSignal
}

/** Something that a peer asks. */
export interface Asked {
  readonly method: Method
  /** Throws UNKNOWN_PEER where the connection is closed. */
  readonly peer: () => ConnectionPeer
  readonly connection: string
  /** Aborted when its peer no longer wants it. */
  readonly abort: AbortController
  /** What it is about, for the audit. */
  readonly object: () => Readonly<Record<string, unknown>>
  /** Whether the daemon is at work from the start to the end, so that the lease waits for it. */
  readonly holdsLease: boolean
}

const cancelled = (): VfiodError => new VfiodError('CANCELLED', 'The call was cancelled')

/** Why the signal was aborted: the daemon has its reasons (DRAINING), a client has none. */
export const abortReason = ({ reason }: AbortSignal): VfiodError =>
  reason instanceof VfiodError ? reason : cancelled()

export class Pipeline {
  readonly #inFlight: InFlightCalls
  readonly #rates: Rates
  readonly #turns = new Turns()
  readonly #log: Log

  constructor(parts: {
    readonly inFlight: InFlightCalls
    readonly rates: Rates
    readonly log: Log
  }) {
    this.#inFlight = parts.inFlight
    this.#rates = parts.rates
    this.#log = parts.log
  }

  /** The first half, for which nothing is read: throws, and logs, why the peer may not ask this. */
  admit(method: Pick<Method, 'name' | 'policy'>, peerOf: () => ConnectionPeer): void {
    let peer: ConnectionPeer | undefined
    try {
      peer = peerOf()
      requireRole(peer, method.policy.role, method.name)
      this.#rates.take(peer)
      peer.requireAlive()
    } catch (error) {
      const failure = toVfiodError(error)
      logOutcome(this.#log, method, { identity: peer?.identity, ms: 0, failure })
      throw failure
    }
  }

  /** The second half: what it throws is always a VfiodError. */
  async run<Result>(
    asked: Asked,
    work: (context: CallContext) => Promise<Result>,
  ): Promise<Result> {
    const { method, connection, abort } = asked
    const started = performance.now()
    let peer: ConnectionPeer | undefined
    let client: Client | undefined
    let failure: VfiodError | undefined
    let ended = (): void => {}
    try {
      peer = asked.peer()
      ended = await this.#turns.begin(peer.account, method.policy.isWide === true)
      const caller = peer
      const { account } = caller
      await onAccountOf(account, () => caller.check())
      if (abort.signal.aborted) throw abortReason(abort.signal)
      client = peer.current()
      const leave = this.#inFlight.enter({ client, abort, isEndless: method.isEndless })
      const letGo = asked.holdsLease ? client.lease.hold() : () => {}
      try {
        const context = { client, connection, signal: abort.signal }
        return await onAccountOf(account, () => work(context))
      } finally {
        letGo()
        leave()
      }
    } catch (error) {
      failure = abort.signal.aborted ? abortReason(abort.signal) : toVfiodError(error)
      throw failure
    } finally {
      ended()
      const ms = Math.round(performance.now() - started)
      const who = { client: client?.id, identity: peer?.identity }
      const object = method.policy.isAudited ? asked.object() : {}
      logOutcome(this.#log, method, { ...who, object, ms, failure })
    }
  }
}
