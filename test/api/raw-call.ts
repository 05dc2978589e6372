/**
 * gRPC spoken by hand over HTTP/2: bytes that no gRPC library would send, and the answer as it comes,
 * trailers and all.
 */
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { DETAILS_KEY, type DecodedStatus, decodeStatus } from '../../src/wire/status-details.ts'

export const openSession = (socket: string): ClientHttp2Session =>
  connect('http://localhost', { createConnection: () => connectSocket(socket) })

/** Length-prefixed messages, as they are sent; `claimed` is a length that is not theirs. */
export const framed = (
  bytes: Buffer,
  { compressed = 0, claimed = bytes.length }: { compressed?: number; claimed?: number } = {},
): Buffer => {
  const head = Buffer.alloc(5)
  head.writeUInt8(compressed)
  head.writeUInt32BE(claimed, 1)
  return Buffer.concat([head, bytes])
}

export interface RawAnswer extends Partial<DecodedStatus> {
  /** grpc-status, as a number. */
  readonly status: number
}

/** One call with these bytes as its body: the status that it ends with, and what that explains. */
export const rawCall = (
  session: ClientHttp2Session,
  path: string,
  body: Buffer,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawAnswer> =>
  new Promise((resolve, reject) => {
    const call = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    })
    let ended: IncomingHttpHeaders = {}
    const keep = (found: IncomingHttpHeaders): void => {
      if (found['grpc-status'] !== undefined) ended = found
    }
    call.on('response', keep)
    call.on('trailers', keep)
    call.on('error', reject)
    call.on('close', () => {
      const details = ended[DETAILS_KEY]
      const bytes = typeof details === 'string' ? Buffer.from(details, 'base64') : Buffer.of()
      const decoded = decodeStatus(bytes) ?? {}
      resolve({ ...decoded, status: Number(ended['grpc-status']) })
    })
    call.resume()
    call.end(body)
  })
