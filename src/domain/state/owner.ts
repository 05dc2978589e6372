/** How owners read in messages, and who is one. */

import { VfiodError } from '../../base/error.ts'
import type { OfferRecord, OwnerRecord } from './records.ts'
import type { State } from './state.ts'

/** `pid 812 (qemu), uid 1000` or `remote host-b`. */
export const ownerText = ({ origin }: Pick<OwnerRecord, 'origin'>): string =>
  origin.kind === 'remote'
    ? `remote ${origin.name}`
    : `pid ${origin.pid} (${origin.command}), uid ${origin.uid}`

/** Handovers whose owners are gone. */
export const waitingOffers = ({ offers }: Pick<State, 'offers'>): OfferRecord[] =>
  [...offers.values()].filter(({ gone }) => gone !== undefined)

/** How long a handover waits yet, in milliseconds. */
export const waitsMs = ({ expiresAt }: OfferRecord): number => Math.max(0, expiresAt - Date.now())

/**
 * The owner of something that is in the way, and the way to get it: where the owner is gone and its
 * handover waits, it cannot give anything back itself.
 */
export const holderOf = (
  state: Pick<State, 'offers'>,
  owner: OwnerRecord,
  ifPresent: string,
): { readonly holder: string; readonly fix: string } => {
  const offer = state.offers.get(owner.id)
  if (offer?.gone === undefined) return { holder: ownerText(owner), fix: ifPresent }
  const seconds = Math.ceil(waitsMs(offer) / 1000)
  return {
    holder: `${ownerText(owner)}, which is gone and has handed it over: it waits ${seconds} s for the token`,
    fix: `adopt it with the token, or have an administrator release client ${owner.id}`,
  }
}

/** Throw unless the caller owns the object; with the state, an owner that is gone is named as gone. */
export function requireOwner(
  caller: OwnerRecord,
  owner: OwnerRecord,
  object: { readonly type: string; readonly name: string },
  state: Pick<State, 'offers'> = { offers: new Map() },
): void {
  if (caller.id === owner.id) return
  const { holder, fix } = holderOf(state, owner, `the caller is ${ownerText(caller)}`)
  throw new VfiodError(
    'NOT_MM_OWNER',
    `Cannot use ${object.type} ${object.name}: it belongs to ${holder}; ${fix}`,
    { resource: { ...object, owner: ownerText(owner) } },
  )
}
