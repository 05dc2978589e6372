import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HEAD_ROOM } from '../../src/base/chunk.ts'
import { KeptWindow } from '../../src/domain/migration/kept-window.ts'

const CHUNK = 20
const RING = 400

/** Byte number `offset` of the session. */
const byteAt = (offset: bigint): number => Number((offset * 7n + 1n) % 251n)

/** Reads `length` bytes of the device, and frames the chunk as a transport would. */
const read = (kept: KeptWindow, length: number): void => {
  const room = kept.room()
  expect(room).toHaveLength(CHUNK)
  for (let n = 0; n < length; n += 1) room[n] = byteAt(kept.end + BigInt(n))
  const { buffer, headRoom } = kept.keep(length)
  buffer.fill(0xff, headRoom - HEAD_ROOM, headRoom)
}

const bytesFrom = (kept: KeptWindow, from: bigint): number[] =>
  [...kept.from(from)].flatMap(({ buffer, headRoom, data }) => {
    const bytes = [...data]
    buffer.fill(0xff, headRoom - HEAD_ROOM, headRoom)
    return bytes
  })

describe('the kept bytes', () => {
  test('are those of the session from any kept byte to the last, however reads cut them', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: CHUNK }), { maxLength: 60 }), (lengths) => {
        const kept = new KeptWindow(RING, CHUNK)
        for (const length of lengths) {
          read(kept, length)
          const froms = [kept.start, kept.start + 1n, (kept.start + kept.end) / 2n, kept.end]
          for (const from of froms) {
            const wanted = Array.from({ length: Number(kept.end - from) }, (_, n) =>
              byteAt(from + BigInt(n)),
            )
            expect(bytesFrom(kept, from)).toEqual(wanted)
          }
        }
        expect(kept.end).toBe(BigInt(lengths.reduce((sum, length) => sum + length, 0)))
      }),
    )
  })

  test('are all of a session that is shorter than the window', () => {
    const kept = new KeptWindow(RING, CHUNK)
    for (let n = 0; n < 5; n += 1) read(kept, CHUNK)

    expect([kept.start, kept.end]).toEqual([0n, 100n])
  })

  test('of a long one are at least what the ring holds without two reads and the head rooms', () => {
    const kept = new KeptWindow(RING, CHUNK)
    for (let n = 0; n < 500; n += 1) {
      read(kept, CHUNK)
      const full = Math.floor(RING / (HEAD_ROOM + CHUNK)) - 2
      if (n >= full) expect(kept.end - kept.start).toBeGreaterThanOrEqual(BigInt(full * CHUNK))
    }
  })

  test('stay where they are while the device is read once more, but for the oldest', () => {
    const kept = new KeptWindow(RING, CHUNK)
    for (let n = 0; n < 100; n += 1) {
      read(kept, CHUNK)
      const last = [...kept.from(kept.end - BigInt(CHUNK))][0]
      kept.room().fill(0xee)
      expect([...(last?.data ?? [])]).toEqual(bytesFrom(kept, kept.end - BigInt(CHUNK)))
      expect(last?.data[0]).toBe(byteAt(kept.end - BigInt(CHUNK)))
    }
  })

  test('are gone when they are freed, and their memory serves the next window', () => {
    const first = new KeptWindow(RING, CHUNK)
    read(first, CHUNK)
    const { buffer } = [...first.from(0n)][0] ?? {}
    first.free()
    const second = new KeptWindow(RING, CHUNK)
    read(second, CHUNK)

    expect([...first.from(0n)]).toEqual([])
    expect([...second.from(0n)][0]?.buffer).toBe(buffer)
  })
})
