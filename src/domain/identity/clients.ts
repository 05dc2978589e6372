/**
 * Who calls. A client is an mm: the threads of a process and its vfork children share it, a fork
 * child and an exec'd image do not. The api room makes clients from what the kernel says of a
 * connection; nothing here believes a client about itself.
 */

import type { Grant } from '../../rules/policy.ts'
import type { OwnerRecord } from '../state/records.ts'

export interface Client extends OwnerRecord {
  /** What the policy grants it; asked each time, since a policy may be reloaded. */
  readonly grant: Grant
  readonly lease: Lease
}

/** How long the objects of a client are kept after its last activity. */
export interface Lease {
  /** Milliseconds until they are released; undefined where they last as long as its process. */
  readonly remainingMs: number | undefined
  /** The client was active: the lease starts again, unless it has run out or does not run. */
  renew(): void
  /** It does not run until what this answers is called; then it begins anew. */
  hold(): () => void
}

/** The lease of a process of this host: it ends with the process. */
export const PROCESS_LEASE: Lease = {
  remainingMs: undefined,
  renew: () => {},
  hold: () => () => {},
}

/** The client as records name it. */
export const ownerOf = ({ id, identity, account, origin }: OwnerRecord): OwnerRecord => ({
  id,
  identity,
  account,
  origin,
})
