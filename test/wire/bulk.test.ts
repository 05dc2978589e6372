// The hand-made serializer against proto-loader's own: every message that one writes, the other
// reads as the same message.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Chunk, HEAD_ROOM } from '../../src/base/chunk.ts'
import { U64_MAX } from '../../src/base/units.ts'
import type {
  ReadSessionResponse,
  ReadSessionResponse__Output,
} from '../../src/proto/vfiod/v1/ReadSessionResponse.ts'
import type {
  WriteSessionRequest,
  WriteSessionRequest__Output,
} from '../../src/proto/vfiod/v1/WriteSessionRequest.ts'
import { messageType, services } from '../../src/wire/protos.ts'

const response = messageType<ReadSessionResponse, ReadSessionResponse__Output>(
  'vfiod.v1.ReadSessionResponse',
)
const request = messageType<WriteSessionRequest, WriteSessionRequest__Output>(
  'vfiod.v1.WriteSessionRequest',
)
const { ReadSession, WriteSession } = services.migration

// The handlers and the client give chunks where the generated types know messages only.
const written = (chunk: Chunk): Buffer =>
  ReadSession.responseSerialize(chunk as object as ReadSessionResponse)
const sent = (chunk: Chunk): Buffer =>
  WriteSession.requestSerialize(chunk as object as WriteSessionRequest)

/** A chunk as a session makes it: the data behind head room, in a buffer with old bytes in it. */
const chunkOf = (data: Uint8Array, offset: bigint, headRoom = HEAD_ROOM): Chunk => {
  const buffer = Buffer.alloc(headRoom + data.length + 7, 0xee)
  buffer.set(data, headRoom)
  return new Chunk({ buffer, headRoom, length: data.length, offset })
}

const offsets = fc.oneof(
  fc.bigInt(0n, U64_MAX),
  fc.constantFrom(0n, 127n, 128n, 16383n, 16384n, 1n << 35n, (1n << 63n) - 1n, 1n << 63n, U64_MAX),
)
const someData = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.constantFrom(0, 127, 128, 16383, 16384, 1 << 20).map((length) => new Uint8Array(length)),
)

describe('ReadSessionResponse', () => {
  test('is read by proto-loader as the chunk that was written, for any data and offset', () => {
    fc.assert(
      fc.property(
        someData,
        offsets,
        fc.integer({ min: HEAD_ROOM, max: 64 }),
        (data, offset, head) => {
          const bytes = written(chunkOf(data, offset, head))

          const decoded = response.deserialize(bytes)
          expect(decoded.offset).toBe(String(offset))
          expect(decoded.end).toBeNull()
          expect(decoded.data.equals(Buffer.from(data))).toBe(true)
        },
      ),
    )
  })

  test('equals what proto-loader writes, once both are decoded', () => {
    fc.assert(
      fc.property(someData, offsets, (data, offset) => {
        const ours = ReadSession.responseDeserialize(written(chunkOf(data, offset)))
        const theirs = ReadSession.responseDeserialize(
          response.serialize({ data: Buffer.from(data), offset: String(offset) }),
        )

        expect({ ...ours, data: null }).toEqual({ ...theirs, data: null })
        expect(ours.data.equals(theirs.data)).toBe(true)
      }),
    )
  })

  test('has the same number of bytes as the message of proto-loader', () => {
    fc.assert(
      fc.property(someData, offsets, (data, offset) => {
        const ours = written(chunkOf(data, offset))
        const theirs = response.serialize({ data: Buffer.from(data), offset: String(offset) })

        expect(ours.length).toBe(theirs.length)
      }),
    )
  })

  test('is a view of the buffer of the chunk: nothing is copied', () => {
    const chunk = chunkOf(Buffer.from('state'), 1n << 40n)

    const bytes = written(chunk)

    expect(bytes.buffer).toBe(chunk.buffer.buffer)
    expect(bytes.byteOffset).toBeGreaterThanOrEqual(chunk.buffer.byteOffset)
  })

  test('leaves the end of a read to proto-loader', () => {
    const bytes = ReadSession.responseSerialize({
      end: { sessionId: 4, totalBytes: '7', complete: true },
    })

    expect(response.deserialize(bytes).end).toEqual({
      sessionId: '4',
      totalBytes: '7',
      complete: true,
    })
  })
})

describe('WriteSessionRequest', () => {
  test('is read by proto-loader as the chunk that was written, for any data and offset', () => {
    fc.assert(
      fc.property(someData, offsets, (data, offset) => {
        const bytes = sent(chunkOf(data, offset))

        const decoded = request.deserialize(bytes)
        expect(decoded.offset).toBe(String(offset))
        expect(decoded.name).toBe('')
        expect(decoded.data.equals(Buffer.from(data))).toBe(true)
      }),
    )
  })

  test('that names the device is what proto-loader writes', () => {
    const first = { name: '0000:00:04.0', offset: '5', data: Buffer.from('x') }

    expect(WriteSession.requestSerialize(first).equals(request.serialize(first))).toBe(true)
  })
})
