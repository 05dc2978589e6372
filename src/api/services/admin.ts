/** AdminService: who uses the daemon, how much, how it is configured, and its end. */
import { badArgument } from '../../base/error.ts'
import type { Domain } from '../../domain/domain.ts'
import type { Client } from '../../domain/identity/clients.ts'
import { waitingOffers } from '../../domain/state/owner.ts'
import type { OfferRecord, OwnerRecord } from '../../domain/state/records.ts'
import { type Amounts, amountsOf } from '../../domain/state/usage.ts'
import type { AdminServiceHandlers } from '../../proto/vfiod/v1/AdminService.ts'
import type { AmountInUse } from '../../proto/vfiod/v1/AmountInUse.ts'
import type { ClientInfo } from '../../proto/vfiod/v1/ClientInfo.ts'
import type { Handlers } from '../call/call.ts'
import { absenceToProto, processOf } from './convert.ts'
import { roleToProto, usageToProto } from './ownership.ts'
import { pageOf } from './page.ts'

/** The configuration of the daemon and its shutdown, for administrators. */
export interface Administration {
  /** TOML, every default filled in. */
  configuration(): string
  /** TOML. */
  policy(): string
  /** When the policy was loaded, and what was wrong with a newer one. */
  policyStatus(): string
  /** Shut down gracefully; answers at once. */
  drain(): void
}

export interface AdminParts {
  readonly domain: Domain
  readonly administration: Administration
  readonly clients: () => readonly Client[]
}

const infoOf = (domain: Domain, client: OwnerRecord): ClientInfo => {
  const isHis = ({ owner }: { readonly owner: OwnerRecord }) => owner.id === client.id
  const spaces = domain.spaces.list().filter(isHis)
  return {
    clientId: client.id,
    identity: client.identity,
    pid: processOf(client).pid,
    command: processOf(client).command,
    spaceIds: spaces.map(({ id }) => id),
    memoryIds: domain.memories.list(client).map(({ id }) => id),
    devices: spaces.flatMap(({ devices }) => devices),
  }
}

const presentInfo = (domain: Domain, client: Client): ClientInfo => ({
  ...infoOf(domain, client),
  role: roleToProto(client.grant.role),
  usage: usageToProto(domain.quotas.usage(client)),
})

/** One that is gone, and whose handover waits for its token. */
const absentInfo = (domain: Domain, offer: OfferRecord): ClientInfo => ({
  ...infoOf(domain, offer.owner),
  ...absenceToProto(offer),
})

const usedToProto = (amounts: Amounts): AmountInUse[] =>
  amountsOf(amounts).map(([name, amount]) => ({ name, current: String(amount) }))

export const adminHandlers = ({
  domain,
  administration,
  clients,
}: AdminParts): Handlers<AdminServiceHandlers> => ({
  ListClients: (request) => {
    const known = [
      ...clients().map((client) => ({ id: client.id, info: () => presentInfo(domain, client) })),
      ...waitingOffers(domain.state).map((offer) => ({
        id: offer.owner.id,
        info: () => absentInfo(domain, offer),
      })),
    ]
    const { elements, nextPageToken } = pageOf(known, ({ id }) => id, request)
    return { clients: elements.map(({ info }) => info()), nextPageToken }
  },

  ReleaseClient: async ({ clientId }, { client: admin }) => {
    const absent = waitingOffers(domain.state).map(({ owner }) => owner)
    const client = [...clients(), ...absent].find(({ id }) => id === clientId)
    if (client === undefined)
      throw badArgument('client_id', `Cannot release "${clientId}": there is no such client`)
    await domain.evict(client, `released by ${admin.identity}`)
    return {}
  },

  GetUsage: () => ({
    usage: usageToProto(domain.quotas.totalUsage()),
    accounts: [...domain.quotas.usageByAccount()].map(([account, amounts]) => ({
      account,
      used: usedToProto(amounts),
    })),
  }),

  GetConfiguration: () => ({
    configuration: administration.configuration(),
    policy: administration.policy(),
    policyStatus: administration.policyStatus(),
  }),

  Drain: () => {
    administration.drain()
    return {}
  },
})
