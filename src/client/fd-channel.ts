/**
 * The client's side of the fd channel: a ticket from an RPC, sent as one packet with the fds where
 * it is for sending, answered by one packet with the fds where it is for receiving.
 */
import { errnoName } from '../base/errno.ts'
import type { Reason } from '../base/error.ts'
import { LIMITS } from '../base/limits.ts'
import { connectSeqpacket } from '../os/fd-passing.ts'
import { closeAll } from '../os/unix-socket.ts'
import type { Ticket } from '../proto/vfiod/v1/Ticket.ts'
import { RpcError, type StatusName } from './rpc-error.ts'

export interface FdReply {
  /** What the daemon says of the outcome, as JSON. */
  readonly reply: Readonly<Record<string, unknown>>
  /** The caller's to close. */
  readonly fds: readonly number[]
}

const METHOD = 'fd channel'

const unreachable = (message: string): RpcError =>
  new RpcError({ method: METHOD, status: 'UNAVAILABLE', reason: '', message, details: {} })

const refused = (answer: Readonly<Record<string, unknown>>): RpcError =>
  new RpcError({
    method: METHOD,
    status: answer.status as StatusName,
    reason: String(answer.reason) as Reason,
    message: String(answer.message),
    details: {},
  })

type Redeem = (fds: readonly number[]) => Promise<FdReply>

/** One connection, on which a ticket is redeemed by as many packets as it needs. */
const redeeming = async <Result>(
  ticket: Ticket,
  work: (redeem: Redeem) => Promise<Result>,
): Promise<Result> => {
  const path = ticket.socketPath ?? ''
  const connection = connectSeqpacket(path)
  if (typeof connection === 'number')
    throw unreachable(`Cannot connect to the fd channel '${path}': ${errnoName(-connection)}`)
  const redeem: Redeem = async (fds) => {
    const sent = connection.send(Buffer.from(ticket.ticket ?? ''), fds)
    if (sent < 0) throw unreachable(`Cannot send the ticket to '${path}': ${errnoName(-sent)}`)
    const packet = await connection.receive()
    if (typeof packet === 'number')
      throw unreachable(`Cannot receive from '${path}': ${errnoName(-packet)}`)
    if (packet.bytes.length === 0)
      throw unreachable(`Cannot receive from '${path}': the daemon closed it without an answer`)
    const answer = JSON.parse(Buffer.from(packet.bytes).toString())
    if (answer.ok === true) return { reply: answer, fds: packet.fds }
    await closeAll(packet.fds)
    throw refused(answer)
  }
  try {
    return await work(redeem)
  } finally {
    connection.close()
  }
}

/**
 * Passes fds to the daemon, in as many packets as they need; they stay open here. Answers what the
 * daemon says of the last.
 */
export const sendFds = (
  ticket: Ticket,
  fds: readonly number[],
): Promise<Readonly<Record<string, unknown>>> =>
  redeeming(ticket, async (redeem) => {
    for (let at = 0; ; at += LIMITS.fdsPerPacket) {
      const packet = fds.slice(at, at + LIMITS.fdsPerPacket)
      const { reply, fds: unexpected } = await redeem(packet)
      await closeAll(unexpected)
      if (at + packet.length >= fds.length) return reply
    }
  })

/** Takes the fds that a ticket is for. */
export const receiveFds = (ticket: Ticket): Promise<FdReply> =>
  redeeming(ticket, (redeem) => redeem([]))
