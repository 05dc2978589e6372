/**
 * The hand-made serializer for the messages that carry device state, ReadSessionResponse and
 * WriteSessionRequest. proto-loader's would copy every mebibyte once more.
 *
 * A chunk is read into a buffer behind HEAD_ROOM free bytes. Tags and lengths are written into
 * those bytes, directly before the data, and the message is a view of the same buffer:
 *
 *     | free | 0x10 offset | tag length | data ............. | free |
 *            ^ message starts             ^ headRoom
 *
 * The order of fields is free in protobuf, so offset comes before the data in both messages. The
 * view is valid until the buffer is used again, which must wait for the write's callback.
 */
import { Chunk } from '../base/chunk.ts'
import type { ReadSessionResponse } from '../proto/vfiod/v1/ReadSessionResponse.ts'
import type { WriteSessionRequest } from '../proto/vfiod/v1/WriteSessionRequest.ts'

/** Field numbers and wire types, as proto/vfiod/v1/migration.proto numbers them. */
const OFFSET_TAG = (2 << 3) | 0
const READ_DATA_TAG = (1 << 3) | 2
const WRITE_DATA_TAG = (3 << 3) | 2

const varintLength = (value: bigint): number => {
  let length = 1
  for (let rest = value >> 7n; rest > 0n; rest >>= 7n) length++
  return length
}

/** Writes a varint that ends where `end` is; answers where it starts. */
const varintBefore = (buffer: Buffer, end: number, value: bigint): number => {
  const start = end - varintLength(value)
  let rest = value
  for (let at = start; at < end - 1; at++) {
    buffer[at] = Number(rest & 0x7fn) | 0x80
    rest >>= 7n
  }
  buffer[end - 1] = Number(rest)
  return start
}

const message = (dataTag: number, chunk: Chunk): Buffer => {
  const { buffer, headRoom, length, offset } = chunk
  let start = varintBefore(buffer, headRoom, BigInt(length))
  buffer[--start] = dataTag
  start = varintBefore(buffer, start, offset)
  buffer[--start] = OFFSET_TAG
  return buffer.subarray(start, headRoom + length)
}

type Serialize<Message> = (message: Message) => Buffer

/** Serializes chunks in place, and everything else (the end of a read) as proto-loader does. */
export const readSessionSerializer =
  (otherwise: Serialize<ReadSessionResponse>): Serialize<ReadSessionResponse | Chunk> =>
  (value) =>
    value instanceof Chunk ? message(READ_DATA_TAG, value) : otherwise(value)

/** Serializes chunks in place; the first message, which names the device, as proto-loader does. */
export const writeSessionSerializer =
  (otherwise: Serialize<WriteSessionRequest>): Serialize<WriteSessionRequest | Chunk> =>
  (value) =>
    value instanceof Chunk ? message(WRITE_DATA_TAG, value) : otherwise(value)
