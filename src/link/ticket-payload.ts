/** The payload of a `ticket` frame: | number of fds u16 | bytes of the packet |. */

/** Longer than any ticket: what is longer cannot be one, and only its length is told. */
export const TICKET_LENGTH_MAX = 256

/** A packet that lost a part: it was longer than a packet may be, or had more fds. */
export const LOST_A_PART = 0xffff

export const encodeTicket = (fds: number, ticket: Uint8Array): Buffer => {
  const count = Buffer.alloc(2)
  count.writeUInt16LE(fds)
  return Buffer.concat([count, ticket.subarray(0, TICKET_LENGTH_MAX)])
}

/** Undefined where it is none. */
export const decodeTicket = (
  payload: Buffer,
): { readonly fds: number; readonly ticket: string } | undefined => {
  if (payload.length < 2 || payload.length > 2 + TICKET_LENGTH_MAX) return undefined
  return { fds: payload.readUInt16LE(0), ticket: payload.toString('latin1', 2) }
}
