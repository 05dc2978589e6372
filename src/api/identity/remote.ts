/**
 * Clients on other hosts: TLS 1.3 with certificates on both sides, or nothing. The name in the
 * client's certificate is who it is; everybody with that name is one client. There is no process to
 * watch, so ownership is a lease: when it runs out everything is released.
 *
 * Whatever is heard of the client renews it: each call, each message that it uploads, each one that
 * it takes of a download. It does not run out while the daemon itself is at work, on a call or on a
 * message of an upload, nor while the event loop is held up; a client that is waited for has until its
 * deadline.
 */
import type { Client } from '../../domain/identity/clients.ts'
import type { Origin } from '../../domain/state/records.ts'
import { Deadline } from '../../os/deadline.ts'
import type { Grant } from '../../rules/policy.ts'
import type { ConnectionPeer, GrantOf, Release } from './connection-peer.ts'

const identityOf = (name: string): string => `remote ${name}`

class RemoteClient implements Client {
  readonly id: string
  readonly remote: string
  readonly origin: Origin
  readonly identity: string
  readonly #grantOf: GrantOf
  readonly #leaseMs: number
  readonly #expired: () => void
  #lease: Deadline | undefined
  /** When the lease runs out, if the loop is never late. */
  #runsOut = 0
  /** Pieces of work that the daemon does for it; the lease runs while there are none. */
  #holds = 0
  #isEnded = false

  constructor(
    id: string,
    parts: {
      readonly remote: string
      readonly grantOf: GrantOf
      readonly leaseMs: number
      readonly expired: (client: Client) => void
    },
  ) {
    this.id = id
    this.remote = parts.remote
    this.origin = { kind: 'remote', name: parts.remote }
    this.identity = identityOf(parts.remote)
    this.#grantOf = parts.grantOf
    this.#leaseMs = parts.leaseMs
    this.#expired = () => parts.expired(this)
    this.renew()
  }

  get grant(): Grant {
    return this.#grantOf({ kind: 'remote', name: this.remote })
  }

  /** Milliseconds until everything it owns is released, unless it is heard of. */
  get leaseMs(): number {
    if (this.#holds > 0) return this.#leaseMs
    return Math.max(0, Math.ceil(this.#runsOut - performance.now()))
  }

  /** Begins the whole time anew, unless it has run out or does not run. */
  renew(): void {
    if (this.#isEnded || this.#holds > 0) return
    this.#lease?.cancel()
    this.#runsOut = performance.now() + this.#leaseMs
    this.#lease = new Deadline(this.#leaseMs, () => {
      this.end()
      this.#expired()
    })
  }

  /** The lease does not run until what this answers is called; then it begins anew. */
  hold(): () => void {
    this.#holds += 1
    this.#lease?.cancel()
    return () => {
      this.#holds -= 1
      this.renew()
    }
  }

  end(): void {
    this.#isEnded = true
    this.#lease?.cancel()
  }
}

export class RemotePeers {
  readonly #byName = new Map<string, RemoteClient>()
  readonly #grantOf: GrantOf
  readonly #leaseMs: number
  readonly #release: Release
  #seen = 0

  constructor(parts: {
    readonly grantOf: GrantOf
    readonly leaseMs: number
    readonly release: Release
  }) {
    this.#grantOf = parts.grantOf
    this.#leaseMs = parts.leaseMs
    this.#release = parts.release
  }

  clients(): Client[] {
    return [...this.#byName.values()]
  }

  /** The other end of a connection whose certificate has this name. */
  at(name: string): ConnectionPeer {
    const grantOf = this.#grantOf
    return {
      identity: identityOf(name),
      get grant() {
        return grantOf({ kind: 'remote', name })
      },
      current: () => this.current(name),
      requireAlive: () => {},
      disconnected: () => {},
    }
  }

  /** The client that calls by a certificate of this name; the call renews its lease. */
  current(name: string): Client {
    const known = this.#byName.get(name)
    if (known !== undefined) {
      known.renew()
      return known
    }
    this.#seen += 1
    const made = new RemoteClient(`remote-${this.#seen}`, {
      remote: name,
      grantOf: this.#grantOf,
      leaseMs: this.#leaseMs,
      expired: (client) => {
        this.#byName.delete(name)
        this.#release(client, 'its lease ran out')
      },
    })
    this.#byName.set(name, made)
    return made
  }

  close(): void {
    for (const client of this.#byName.values()) client.end()
    this.#byName.clear()
  }
}

/** What is left of a client's lease; 0 for a local one, which has none. */
export const leaseMsOf = (client: Client): number =>
  client instanceof RemoteClient ? client.leaseMs : 0

/** The client took a message, or sent one: its lease begins anew. Nothing to a local client. */
export const heardFrom = (client: Client): void => {
  if (client instanceof RemoteClient) client.renew()
}

/** The daemon is at work for the client until what this answers is called: its lease waits. */
export const holdLease = (client: Client): (() => void) =>
  client instanceof RemoteClient ? client.hold() : () => {}
