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
}

/** The client as records name it. */
export const ownerOf = ({ id, identity, origin }: OwnerRecord): OwnerRecord => ({
  id,
  identity,
  origin,
})
