/** OwnershipService: who the caller is, handing over, leases, what happened. */
import { VfiodError } from '../../base/error.ts'
import type { Domain } from '../../domain/domain.ts'
import type { Client } from '../../domain/identity/clients.ts'
import type { Usage } from '../../domain/identity/quotas.ts'
import type { Event } from '../../domain/state/events.ts'
import { ownerText } from '../../domain/state/owner.ts'
import type { Event as ProtoEvent } from '../../proto/vfiod/v1/Event.ts'
import type { EventKind } from '../../proto/vfiod/v1/EventKind.ts'
import type { OwnershipServiceHandlers } from '../../proto/vfiod/v1/OwnershipService.ts'
import type { QuotaUsage } from '../../proto/vfiod/v1/QuotaUsage.ts'
import type { Role as ProtoRole } from '../../proto/vfiod/v1/Role.ts'
import type { WatchEventsResponse } from '../../proto/vfiod/v1/WatchEventsResponse.ts'
import { hasRole, type Role } from '../../rules/policy.ts'
import type { Handlers } from '../call/call.ts'
import { processOf } from './convert.ts'

const ROLE: Record<Role, ProtoRole> = {
  none: 'ROLE_NONE',
  observe: 'ROLE_OBSERVE',
  operate: 'ROLE_OPERATE',
  admin: 'ROLE_ADMIN',
}

const EVENT: Record<Event['kind'], EventKind> = {
  released: 'EVENT_KIND_RELEASED',
  'handover-offered': 'EVENT_KIND_HANDOVER_OFFERED',
  'handover-expired': 'EVENT_KIND_HANDOVER_EXPIRED',
  adopted: 'EVENT_KIND_ADOPTED',
  'vaddr-restored': 'EVENT_KIND_VADDR_RESTORED',
  'lease-expired': 'EVENT_KIND_LEASE_EXPIRED',
  'device-requested': 'EVENT_KIND_DEVICE_REQUESTED',
  'device-error': 'EVENT_KIND_DEVICE_ERROR',
  'device-lost': 'EVENT_KIND_DEVICE_LOST',
  'device-taken': 'EVENT_KIND_DEVICE_TAKEN',
  'group-lost': 'EVENT_KIND_GROUP_LOST',
  'regions-unmapped': 'EVENT_KIND_REGIONS_UNMAPPED',
}

const eventToProto = ({ kind, client, why, spaces, memories, ...about }: Event): ProtoEvent => ({
  kind: EVENT[kind],
  ...{ client, why, spaces, memories },
  device: about.device ?? '',
  spaceId: about.spaceId ?? '',
  ...(about.group === undefined ? {} : { groupId: about.group }),
})

export const roleToProto = (role: Role): ProtoRole => ROLE[role]

export const usageToProto = (usage: readonly Usage[]): QuotaUsage[] =>
  usage.map(({ name, current, max }) => ({ name, current: String(current), max: String(max) }))

/** The lease of a remote client, which the call itself has just renewed. */
function requireLease(client: Client): number {
  const { remainingMs } = client.lease
  if (remainingMs !== undefined) return remainingMs
  throw new VfiodError(
    'UNSUPPORTED',
    `Cannot renew a lease: ${ownerText(client)} is a process of this host and has none; its resources are kept until it ends`,
  )
}

export const ownershipHandlers = (domain: Domain): Handlers<OwnershipServiceHandlers> => ({
  WhoAmI: (_request, { client }) => ({
    clientId: client.id,
    identity: client.identity,
    account: client.account,
    pid: processOf(client).pid,
    uid: processOf(client).uid,
    gid: processOf(client).gid,
    groups: [...processOf(client).groups],
    role: roleToProto(client.grant.role),
    devices: [...client.grant.devices],
    addsGroups: client.grant.addsGroups,
    usage: usageToProto(domain.quotas.usage(client)),
    leaseMs: client.lease.remainingMs ?? 0,
  }),

  HandOver: ({ deadlineMs }, { client }) => domain.handOver(client, deadlineMs),

  Adopt: ({ token }, { client }) => domain.adopt(client, token),

  KeepAlive: (_request, { client }) => ({ leaseMs: requireLease(client) }),

  WatchEvents: async function* (
    _request,
    { client, signal },
  ): AsyncGenerator<WatchEventsResponse, void> {
    const concerns = (event: Event) =>
      hasRole(client.grant, 'admin') || event.clients.includes(client.id)
    const events = domain.watchEvents(client, concerns, signal)
    yield { watching: true }
    for await (const event of events) yield { happened: eventToProto(event) }
  },
})
