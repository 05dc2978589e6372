/**
 * The other end of a connection: the credentials it is judged by, and the client that it calls for.
 * A local one is a process, known from the kernel (peers.ts); one on another host is the name in a
 * certificate (remote.ts).
 */
import type { Client } from '../../domain/identity/clients.ts'
import type { QuotaHolder } from '../../domain/identity/quotas.ts'
import type { Grant, Identity } from '../../rules/policy.ts'

/** What the policy grants an identity at this moment. */
export type GrantOf = (identity: Identity) => Grant

/** Releases what a client owned; called once for every client that is gone. Never rejects. */
export type Release = (client: Client, why: string) => Promise<void>

/** A connected peer, and whose quotas it counts against. */
export interface Payer extends QuotaHolder {
  readonly identity: string
}

/** The account of an identity: its own, unless the policy says another. */
export const accountOf = (identity: string, { account }: Grant): string => account ?? identity

export interface ConnectionPeer {
  /** Who it is: `uid 1000`, `remote host-b`. */
  readonly identity: string
  /** Whose quota its calls count against. */
  readonly account: string
  /** Asked at each use: the policy may have been reloaded. */
  readonly grant: Grant
  /** Looks at the caller, at each call: throws where it is not what connected, or cannot be looked at. */
  check(): Promise<void>
  /** The client that calls, right after a check; throws where there is none. */
  current(): Client
  /** Throw UNKNOWN_PEER where its process has exited: at little cost, and for a first look only. */
  requireAlive(): void
  disconnected(): void
}
