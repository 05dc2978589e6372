/**
 * Between proto and domain values. 64-bit numbers are decimal strings on the wire and bigint in
 * the domain; whatever does not convert is BAD_ARGUMENT and names the field.
 */
import { type Blocker, badArgument } from '../../base/error.ts'
import { type Access, type Iova, type IovaRange, iova, U64_MAX } from '../../base/units.ts'
import type { Ticket } from '../../domain/identity/tickets.ts'
import { waitsMs } from '../../domain/state/owner.ts'
import type {
  ConditionKind,
  DeviceCondition,
  OfferRecord,
  OwnerRecord,
} from '../../domain/state/records.ts'
import type { Access as ProtoAccess } from '../../proto/vfiod/v1/Access.ts'
import type { Blocker as ProtoBlocker } from '../../proto/vfiod/v1/Blocker.ts'
import type { DeviceCondition as ProtoCondition } from '../../proto/vfiod/v1/DeviceCondition.ts'
import type { DeviceConditionKind } from '../../proto/vfiod/v1/DeviceConditionKind.ts'
import type { IovaRange as ProtoRange } from '../../proto/vfiod/v1/IovaRange.ts'
import type { ItemStatus } from '../../proto/vfiod/v1/ItemStatus.ts'
import type { Owner } from '../../proto/vfiod/v1/Owner.ts'
import type { Ticket as ProtoTicket } from '../../proto/vfiod/v1/Ticket.ts'
import { STATUS, toVfiodError } from '../../wire/status.ts'
import { MESSAGE_MAX, sendable } from '../../wire/status-details.ts'

/** A number of 64 bits; proto-loader gives "0" for a field that was not sent. */
export const u64 = (field: string, text: string): bigint => {
  const value = /^\d{1,20}$/.test(text) ? BigInt(text) : U64_MAX + 1n
  if (value <= U64_MAX) return value
  throw badArgument(field, `Cannot read ${field}: a number from 0 to 2^64-1 is needed`)
}

export const iovaOf = (field: string, text: string): Iova => iova(u64(field, text))

/** Looks a proto enum value up; one that the table lacks, unspecified or unknown, is refused. */
export const enumOf = <Value>(
  field: string,
  table: Readonly<Record<string, Value>>,
  name: string | number,
): Value => {
  // A value that this version of the proto has no name for arrives as its number.
  const value = Object.hasOwn(table, name) ? table[name] : undefined
  if (value !== undefined) return value
  const names = Object.keys(table).join(', ')
  throw badArgument(field, `Cannot use ${name} as ${field}: one of ${names} is needed`)
}

/** The other way round: every domain value has a name in the proto. */
export const enumName = <Name extends string, Value>(
  table: Readonly<Record<Name, Value>>,
  value: Value,
): Name => {
  for (const name of Object.keys(table) as Name[]) if (table[name] === value) return name
  throw new Error(`no proto name for ${String(value)}`)
}

const ACCESS = {
  ACCESS_READ: 'read',
  ACCESS_WRITE: 'write',
  ACCESS_READ_WRITE: 'read-write',
} as const satisfies Partial<Record<ProtoAccess, Access>>

export const accessOf = (field: string, name: string | number): Access =>
  enumOf<Access>(field, ACCESS, name)

export const accessToProto = (access: Access): ProtoAccess =>
  enumName<keyof typeof ACCESS, Access>(ACCESS, access)

const CONDITION: Readonly<Record<ConditionKind, DeviceConditionKind>> = {
  requested: 'DEVICE_CONDITION_KIND_REQUESTED',
  error: 'DEVICE_CONDITION_KIND_ERROR',
  lost: 'DEVICE_CONDITION_KIND_LOST',
}

export const conditionsToProto = (
  name: string,
  conditions: readonly DeviceCondition[],
): ProtoCondition[] =>
  conditions.map(({ kind, since, closesAt }) => ({
    kind: CONDITION[kind],
    name,
    sinceMs: String(since),
    closesInMs: closesAt === undefined ? 0 : Math.max(1, closesAt - Date.now()),
  }))

/** The process of a client, all zero for one on another host. */
export const processOf = ({ origin }: Pick<OwnerRecord, 'origin'>) =>
  origin.kind === 'process' ? origin : { pid: 0, uid: 0, gid: 0, groups: [], command: '' }

/** `offer` is what the owner has handed over, if it has. */
export const ownerToProto = (owner: OwnerRecord, offer?: OfferRecord): Owner => {
  const { id: clientId, identity, origin } = owner
  const named = { clientId, identity, ...absenceToProto(offer) }
  if (origin.kind === 'remote') return named
  const { pid, uid, gid, command } = origin
  return { ...named, process: { pid, uid, gid, command } }
}

/** Whether an owner is gone, and how long its handover waits. */
export const absenceToProto = (offer: OfferRecord | undefined) => {
  const gone = offer?.gone !== undefined
  return { gone, waitsMs: gone ? waitsMs(offer) : 0 }
}

export const rangeToProto = ({ start, last }: IovaRange): ProtoRange => ({
  start: String(start),
  last: String(last),
})

export const blockerToProto = ({ subject, found, fix }: Blocker): ProtoBlocker => ({
  subject,
  found,
  fix,
})

export const ticketToProto = (
  { ticket, expiresInMs }: Ticket,
  fdSocketPath: string,
): ProtoTicket => ({ ticket, socketPath: fdSocketPath, expiresInMs })

/** How one item of a batch ended: undefined when it succeeded. */
export const itemStatus = (failure: unknown): ItemStatus => {
  if (failure === undefined) return { code: 0 }
  const { reason, message } = toVfiodError(failure)
  return { code: STATUS[reason], reason, message: sendable(message, MESSAGE_MAX) }
}
