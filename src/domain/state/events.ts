/**
 * What happened to the objects of clients without their asking: a filter of the changes. A watcher
 * sees what concerns it; an admin sees everything.
 */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { Mailbox } from '../../base/mailbox.ts'
import type { Change, Counts } from './changes.ts'
import { ownerText } from './owner.ts'
import type { OwnerRecord } from './records.ts'
import type { State } from './state.ts'

export const EVENT_KINDS = [
  'released',
  'handover-offered',
  'handover-expired',
  'adopted',
  'vaddr-restored',
  'lease-expired',
] as const
export type EventKind = (typeof EVENT_KINDS)[number]

export interface Event extends Counts {
  readonly kind: EventKind
  /** Ids of the clients it concerns; others do not see it. */
  readonly clients: readonly string[]
  /** For people: `pid 812 (qemu), uid 1000`. */
  readonly client: string
  readonly why: string
}

/** The event that a change is, if it is one. */
export function eventOf(change: Change): Event | undefined {
  switch (change.kind) {
    case 'released':
    case 'handover-expired':
      return about(change.kind, [change.owner], change.why, change.counts)
    case 'handover-offered': {
      const { owner, deadlineMs } = change.offer
      return about(change.kind, [owner], `for ${deadlineMs} ms`, change.counts)
    }
    case 'adopted':
      return about(change.kind, [change.to, change.from], `from ${ownerText(change.from)}`, {
        spaces: change.spaceIds.length,
        memories: change.memoryIds.length,
      })
    case 'lease-expired':
      return about(change.kind, [change.owner], 'it did not renew its lease in time', change.counts)
    case 'vaddr-restored': {
      const { spaceId, restored, failed } = change
      const left = failed === 0 ? '' : `; ${failed} could not be restored`
      const why = `vaddrs of "${spaceId}" were not updated in time: ${restored} have their former memory again${left}`
      return about(change.kind, [change.owner], why, { spaces: 1, memories: 0 })
    }
    default:
      return undefined
  }
}

/** Events from this call on, until the signal; a watcher that lags too far behind is ended. */
export function watchEvents(
  state: State,
  isWanted: (event: Event) => boolean,
  signal: AbortSignal,
): AsyncGenerator<Event, void> {
  const mailbox = new Mailbox<Event>({ limit: LIMITS.eventBacklog, overflow: laggard })
  const unlisten = state.listen((change) => {
    const event = eventOf(change)
    if (event !== undefined && isWanted(event)) mailbox.push(event)
  })
  signal.addEventListener('abort', unlisten, { once: true })
  return mailbox.read(signal)
}

const about = (
  kind: EventKind,
  owners: readonly [OwnerRecord, ...OwnerRecord[]],
  why: string,
  { spaces, memories }: Counts,
): Event => ({
  kind,
  clients: owners.map(({ id }) => id),
  client: ownerText(owners[0]),
  why,
  spaces,
  memories,
})

const laggard = (behind: number): VfiodError =>
  new VfiodError(
    'LIMIT_REACHED',
    `Cannot continue the watch: ${behind} events were not read, at most ${LIMITS.eventBacklog} wait; watch again`,
    {
      quota: {
        limit: 'events that wait for a watcher',
        max: BigInt(LIMITS.eventBacklog),
        current: BigInt(behind),
        needed: 0n,
      },
    },
  )
