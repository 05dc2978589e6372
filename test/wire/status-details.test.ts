// What an error says on the wire, and that a client reads the same back.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Details, REASONS, type Reason, VfiodError } from '../../src/base/error.ts'
import { U64_MAX } from '../../src/base/units.ts'
import { decodeStatus, encodeStatus, MESSAGE_MAX, sendable } from '../../src/wire/status-details.ts'

const roundTrip = (details: Details, reason: Reason = 'GROUP_IN_USE', message = 'Cannot do it') =>
  decodeStatus(encodeStatus(9, new VfiodError(reason, message, details)))

describe('google.rpc.Status', () => {
  test.each(Object.keys(REASONS) as Reason[])('carries the reason %s', (reason) => {
    expect(roundTrip({}, reason)).toEqual({ code: 9, message: 'Cannot do it', reason, details: {} })
  })

  test('carries op, errno and causes in ErrorInfo', () => {
    const causes = ['container-has-vaddr-invalid', 'group-domain-in-use']
    const details = { op: 'VFIO_GROUP_SET_CONTAINER', errno: 'EBUSY', causes }

    expect(roundTrip(details)?.details).toEqual(details)
  })

  test('carries blockers as PreconditionFailure, found and fix apart', () => {
    const blockers = [
      { subject: '0000:01:00.1', found: 'bound to snd_hda_intel', fix: 'bind it; or leave it' },
      { subject: '0000:01:00.2', found: 'bound to nvidia', fix: 'bind it to vfio-pci' },
    ]

    expect(roundTrip({ blockers })?.details.blockers).toEqual(blockers)
  })

  test('carries a quota with numbers up to 2^64-1', () => {
    const quota = { limit: 'locked memory', max: U64_MAX, current: 0n, needed: 1n << 63n }

    expect(roundTrip({ quota })?.details.quota).toEqual(quota)
  })

  test('carries field, resource and retry delay', () => {
    const details = {
      field: 'items[3].iova',
      resource: { type: 'space', name: 's1', owner: 'pid 7 uid 1000' },
      retryAfterMs: 1500,
    }

    expect(roundTrip(details)?.details).toEqual(details)
  })

  test.each<Details>([
    { holder: { client: '812-5d1c0a9be1', space: 'vm' } },
    { holder: { pids: [812, 813], paths: ['/dev/vfio/3', '/dev/vfio/devices/vfio0'] } },
    { deviceState: 'STOP_COPY' },
  ])('carries who has the object, and the state that a device rests in: %o', (details) => {
    expect(roundTrip(details)?.details).toEqual(details)
  })

  test('is null for bytes that are not a google.rpc.Status', () => {
    expect(decodeStatus(Buffer.from([0x0a, 0xff, 0xff]))).toBeNull()
  })

  test('has no reason when the ErrorInfo is of another domain', () => {
    const foreign = encodeStatus(9, new VfiodError('BUG', 'x'))
    const at = foreign.indexOf('vfiod')
    foreign.write('other', at)

    expect(decodeStatus(foreign)?.reason).toBe('')
  })

  test('never throws on random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        decodeStatus(Buffer.from(bytes))
      }),
    )
  })

  test('stays below the 8 KiB that clients accept, however long its parts are', () => {
    const long = '\u{1f600}'.repeat(100_000)
    const details: Details = {
      op: long,
      errno: long,
      causes: [long, long],
      field: long,
      resource: { type: long, name: long, owner: long },
      quota: { limit: long, max: U64_MAX, current: U64_MAX, needed: U64_MAX },
      blockers: Array.from({ length: 5000 }, () => ({ subject: long, found: long, fix: long })),
      retryAfterMs: 1,
    }

    const bytes = encodeStatus(9, new VfiodError('IOVA_OUT_OF_APERTURE', long, details))

    const trailers = bytes.toString('base64').length + encodeURI(sendable(long, MESSAGE_MAX)).length
    expect(trailers).toBeLessThan(8192)
    expect(decodeStatus(bytes)?.details.blockers?.at(-1)?.subject).toMatch(/^\d+ more$/)
  })
})

describe('sendable', () => {
  test('keeps what fits and is well-formed', () => {
    expect(sendable('Cannot map iova 0x1000: mapped', 100)).toBe('Cannot map iova 0x1000: mapped')
  })

  test('replaces a lone surrogate, which encodeURI refuses', () => {
    expect(sendable('a\ud800b', 100)).toBe('a\ufffdb')
  })

  test('is at most as long as it says once encoded, for any text', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary', maxLength: 300 }),
        fc.integer({ min: 20, max: 200 }),
        (text, max) => {
          expect(encodeURI(sendable(text, max)).length).toBeLessThanOrEqual(max)
        },
      ),
    )
  })
})
