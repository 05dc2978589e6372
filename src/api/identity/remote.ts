/**
 * Clients on other hosts. The name in the client's certificate is who it is, and all its holders are
 * one client. There is no process to watch, so ownership is a lease: when it runs out everything
 * is released.
 *
 * All activity of the client renews it: each call, each message that it uploads, each message of a
 * download that it takes. It does not run out while the daemon itself is at work, on a call or on a
 * message of an upload, nor while the event loop is held up; a client that is waited for has until its
 * deadline.
 */
import { VfiodError } from '../../base/error.ts'
import type { Client } from '../../domain/identity/clients.ts'
import { remoteId } from './client-id.ts'
import { accountOf, type ConnectionPeer, type GrantOf, type Release } from './connection-peer.ts'
import { TimedLease } from './lease.ts'

const identityOf = (name: string): string => `remote ${name}`

export class RemotePeers {
  readonly #byName = new Map<string, { readonly client: Client; readonly lease: TimedLease }>()
  /** Names whose lease ran out and whose objects are not all released yet. */
  readonly #releasing = new Set<string>()
  readonly #grantOf: GrantOf
  readonly #leaseMs: number
  readonly #release: Release
  readonly #appeared: (client: Client) => void

  constructor(parts: {
    readonly grantOf: GrantOf
    readonly leaseMs: number
    readonly release: Release
    /** Called for a client that was not there, before its first call. */
    readonly appeared: (client: Client) => void
  }) {
    this.#grantOf = parts.grantOf
    this.#leaseMs = parts.leaseMs
    this.#release = parts.release
    this.#appeared = parts.appeared
  }

  clients(): Client[] {
    return [...this.#byName.values()].map(({ client }) => client)
  }

  /** The other end of a connection whose certificate has this name. */
  at(name: string): ConnectionPeer {
    const grantOf = this.#grantOf
    return {
      identity: identityOf(name),
      get account() {
        return accountOf(this.identity, this.grant)
      },
      get grant() {
        return grantOf({ kind: 'remote', name })
      },
      check: async () => {},
      current: () => this.current(name),
      requireAlive: () => {},
      disconnected: () => {},
    }
  }

  /** The client that calls by a certificate of this name; the call renews its lease. */
  current(name: string): Client {
    const known = this.#byName.get(name)
    if (known !== undefined) {
      known.lease.renew()
      return known.client
    }
    if (this.#releasing.has(name)) throw stillReleasing(name)
    const lease = new TimedLease(this.#leaseMs, () => void this.#expire(name))
    const client = remoteClient(name, { lease, grantOf: this.#grantOf })
    this.#byName.set(name, { client, lease })
    this.#appeared(client)
    return client
  }

  close(): void {
    for (const { lease } of this.#byName.values()) lease.end()
    this.#byName.clear()
  }

  /** The id goes with the name, so the next client of the name waits until the last is gone. */
  async #expire(name: string): Promise<void> {
    const expired = this.#byName.get(name)
    if (expired === undefined) return
    this.#byName.delete(name)
    this.#releasing.add(name)
    try {
      await this.#release(expired.client, 'its lease ran out')
    } finally {
      this.#releasing.delete(name)
    }
  }
}

const remoteClient = (
  name: string,
  { lease, grantOf }: { readonly lease: TimedLease; readonly grantOf: GrantOf },
): Client => ({
  id: remoteId(name),
  identity: identityOf(name),
  account: accountOf(identityOf(name), grantOf({ kind: 'remote', name })),
  origin: { kind: 'remote', name },
  lease,
  get grant() {
    return grantOf({ kind: 'remote', name })
  },
})

const RETRY_MS = 1000

const stillReleasing = (name: string): VfiodError =>
  new VfiodError(
    'RELEASING',
    `Cannot serve remote ${name}: its lease ran out and what it owned is still being released; repeat the call in a moment`,
    { retryAfterMs: RETRY_MS },
  )
