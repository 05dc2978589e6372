/**
 * What happened to the objects of clients without their asking: a filter of the changes. A watcher
 * sees what concerns it; an admin sees everything.
 */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { Mailbox } from '../../base/mailbox.ts'
import type { Change, Counts } from './changes.ts'
import { ownerText } from './owner.ts'
import type { ConditionKind, DeviceCondition, DeviceRecord, OwnerRecord } from './records.ts'
import type { State } from './state.ts'

/** The log of the daemon, as far as the domain writes to it. */
export type EventLog = (
  event: string,
  fields: Record<string, unknown>,
  level?: 'info' | 'warn',
) => void

export const EVENT_KINDS = [
  'released',
  'handover-offered',
  'handover-expired',
  'adopted',
  'vaddr-restored',
  'lease-expired',
  'device-requested',
  'device-error',
  'device-lost',
  'device-taken',
  'group-lost',
  'regions-unmapped',
] as const
export type EventKind = (typeof EVENT_KINDS)[number]

export interface Event extends Counts {
  readonly kind: EventKind
  /** Ids of the clients it concerns; others do not see it. */
  readonly clients: readonly string[]
  /** For people: `pid 812 (qemu), uid 1000`. */
  readonly client: string
  readonly why: string
  /** The device that it is about, where it is about one. */
  readonly device?: string
  /** The address space that it is about, where it is about one. */
  readonly spaceId?: string
  /** The group that it is about, where it is about one. */
  readonly group?: number
}

/** Events that call for an act of the owner or an administrator. */
const WARNINGS: ReadonlySet<EventKind> = new Set([
  'device-requested',
  'device-error',
  'device-lost',
  'device-taken',
  'group-lost',
])

export const isWarning = ({ kind }: Event): boolean => WARNINGS.has(kind)

const CONDITION = {
  requested: {
    event: 'device-requested',
    why: 'the host wants it back, and the call that takes it waits',
  },
  error: {
    event: 'device-error',
    why: 'it reported an uncorrectable error; reset it, or close it',
  },
  lost: { event: 'device-lost', why: 'it no longer answers; close it' },
} as const satisfies Record<ConditionKind, { readonly event: EventKind; readonly why: string }>

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
    case 'condition-set': {
      const { event, why } = CONDITION[change.condition.kind]
      return aboutDevice(event, change, `${change.device.name}: ${why}${closesText(change)}`)
    }
    case 'device-taken':
      return aboutDevice(change.kind, change, `${change.device.name}: ${change.why}`)
    case 'regions-unmapped': {
      const { mappings, why, device } = change
      const count = mappings === 1 ? 'the mapping' : `the ${mappings} mappings`
      const text = `${device.name}: ${count} of its regions in "${device.spaceId}" were removed, because ${why}; map them again once it decodes`
      return aboutDevice(change.kind, change, text)
    }
    case 'member-lost': {
      const { member, owner, mappings } = change
      const { spaceId, group } = member
      const gone =
        mappings === 0 ? '' : `, and the ${mappings} mappings of the space are gone with it`
      const why = `the kernel took group ${group} out of "${spaceId}": its devices left their VFIO driver or were removed${gone}; bind them again, or remove the group`
      return { ...about('group-lost', [owner], why, { spaces: 1, memories: 0 }), spaceId, group }
    }
    default:
      return undefined
  }
}

const closesText = ({ condition }: { readonly condition: DeviceCondition }): string => {
  const { kind, since, closesAt } = condition
  if (closesAt !== undefined)
    return `; close it, or the daemon does in ${(closesAt - since) / 1000} s`
  return kind === 'requested' ? '; close it' : ''
}

const aboutDevice = (
  kind: EventKind,
  { device, owner }: { readonly device: DeviceRecord; readonly owner: OwnerRecord },
  why: string,
): Event => ({
  ...about(kind, [owner], why, { spaces: 1, memories: 0 }),
  device: device.name,
  spaceId: device.spaceId,
  group: device.group,
})

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
