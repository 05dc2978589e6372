/** How owners read in messages, and who is one. */

import { VfiodError } from '../../base/error.ts'
import type { OwnerRecord } from './records.ts'

/** `pid 812 (qemu), uid 1000` or `remote host-b`. */
export const ownerText = ({ origin }: Pick<OwnerRecord, 'origin'>): string =>
  origin.kind === 'remote'
    ? `remote ${origin.name}`
    : `pid ${origin.pid} (${origin.command}), uid ${origin.uid}`

/** Throw unless the caller owns the object. */
export function requireOwner(
  caller: OwnerRecord,
  owner: OwnerRecord,
  object: { readonly type: string; readonly name: string },
): void {
  if (caller.id === owner.id) return
  throw new VfiodError(
    'NOT_MM_OWNER',
    `Cannot use ${object.type} ${object.name}: it belongs to ${ownerText(owner)}; the caller is ${ownerText(caller)}`,
    { resource: { ...object, owner: ownerText(owner) } },
  )
}
