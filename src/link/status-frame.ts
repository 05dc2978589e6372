/** The payload of a `status` frame: | code u16 | length of the message u16 | message | details |. */

const HEAD = 4

export const encodeStatusFrame = (code: number, message: string, details: Buffer): Buffer => {
  const text = Buffer.from(message)
  const head = Buffer.alloc(HEAD)
  head.writeUInt16LE(code, 0)
  head.writeUInt16LE(text.length, 2)
  return Buffer.concat([head, text, details])
}

export const decodeStatusFrame = (
  payload: Buffer,
): { readonly code: number; readonly message: string; readonly details: Buffer } => {
  const end = HEAD + payload.readUInt16LE(2)
  return {
    code: payload.readUInt16LE(0),
    message: payload.toString('utf8', HEAD, end),
    details: payload.subarray(end),
  }
}
