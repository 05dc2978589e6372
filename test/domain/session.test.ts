import { describe, expect, test } from 'vitest'
import type { Chunk } from '../../src/base/chunk.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { DataFd } from '../../src/base/units.ts'
import type { StateStream } from '../../src/domain/migration/driver.ts'
import {
  dropSession,
  readChunks,
  Session,
  startOf,
  takeSession,
  writeAll,
} from '../../src/domain/migration/session.ts'
import { DataFdStream } from '../../src/domain/migration/v2.ts'
import type { Kernel } from '../../src/kernel/port.ts'

/** A kernel whose data_fd gives these answers to reads, one after another, then 0. */
function reading(...answers: (Buffer | number)[]): Kernel & { reads: number } {
  const kernel = {
    reads: 0,
    close: async () => 0,
    read: async (_fd: number, into: Uint8Array) => {
      const next = answers[kernel.reads] ?? 0
      kernel.reads += 1
      if (typeof next === 'number') return next
      into.set(next)
      return next.length
    },
  }
  return kernel as unknown as Kernel & { reads: number }
}

const streamOf = (kernel: Kernel): StateStream => new DataFdStream(kernel, 9 as DataFd)
const saving = (...answers: (Buffer | number)[]) =>
  new Session({ id: 1, stream: streamOf(reading(...answers)), isSaving: true })
const never = new AbortController().signal
const DEVICE = { name: 'dev' }
const ANY = { direction: 'saving', id: 0n } as const

const textOf = ({ data }: Chunk): string => data.toString()

async function contents(session: Session, from = session.bytes, signal = never): Promise<string> {
  let text = ''
  for await (const chunk of readChunks(session, from, signal)) text += textOf(chunk)
  return text
}

describe('reading a session', () => {
  test('gives every byte in order, until the device has none', async () => {
    const session = saving(Buffer.from('one '), Buffer.from('two '), Buffer.from('three'))

    expect(await contents(session)).toBe('one two three')
    expect(session.bytes).toBe(13n)
  })

  test('takes ENOMSG for the end of what there is now', async () => {
    expect(await contents(saving(Buffer.from('initial'), -ERRNO.ENOMSG))).toBe('initial')
  })

  test('keeps what it read ahead for the next reader when one leaves', async () => {
    const session = saving(Buffer.from('one '), Buffer.from('two '), Buffer.from('three'))
    for await (const _ of readChunks(session, 0n, never)) break

    expect(session.bytes).toBe(4n)
    expect(await contents(session)).toBe('two three')
    expect(session.bytes).toBe(13n)
  })

  test('keeps what was read when the call is cancelled meanwhile', async () => {
    const session = saving(Buffer.from('one'))
    const cancelled = new AbortController()
    const chunks = readChunks(session, 0n, cancelled.signal)
    const first = chunks.next()
    cancelled.abort()

    expect((await first).done).toBe(true)
    expect(await contents(session)).toBe('one')
  })

  test('fails with what the kernel said, after the bytes before it', async () => {
    const session = saving(Buffer.from('one'), -ERRNO.ENODEV)
    const seen: number[] = []

    const read = async () => {
      for await (const chunk of readChunks(session, 0n, never)) seen.push(chunk.length)
    }

    await expect(read()).rejects.toMatchObject({ reason: 'SESSION_BROKEN' })
    expect(seen).toEqual([3])
  })

  test('never hands out more than one chunk holds', async () => {
    const session = saving(Buffer.alloc(LIMITS.chunkBytes, 1))

    for await (const chunk of readChunks(session, 0n, never)) {
      expect(chunk.length).toBe(LIMITS.chunkBytes)
    }
  })
})

describe('reading on after a reader that broke off', () => {
  const brokenOff = async (...answers: Buffer[]) => {
    const session = saving(...answers)
    let n = 0
    for await (const _ of readChunks(session, 0n, never)) if (++n === answers.length) break
    return session
  }
  const three = () => brokenOff(Buffer.from('one '), Buffer.from('two '), Buffer.from('three'))
  const at = (from: bigint | undefined, connection = 'one') => ({ from, connection })

  test('gives the bytes again from the one that is named', async () => {
    const session = await three()

    for (const [from, rest] of ['one two three', 'ne two three', 'two three', 'e', ''].map(
      (text) => [13n - BigInt(text.length), text] as const,
    )) {
      expect(startOf(DEVICE, session, at(from))).toBe(from)
      expect(await contents(session, from)).toBe(rest)
    }
  })

  test('needs the byte to be named: BAD_ARGUMENT, for some may not have arrived', async () => {
    const session = await three()

    expect(() => startOf(DEVICE, session, at(undefined))).toThrow(
      'Cannot continue reading session 1 of dev: 13 bytes were sent to a reader that broke off or used another connection, and some may not have arrived; set from_offset to how many have, 0 to 13',
    )
  })

  test('needs no byte to be named on the connection that was told the end', async () => {
    const session = await three()
    session.arrivedOn = 'one'

    expect(startOf(DEVICE, session, at(undefined))).toBe(13n)
    expect(() => startOf(DEVICE, session, at(undefined, 'two'))).toThrow('from_offset')
  })

  test('cannot start beyond the bytes that were sent: BAD_ARGUMENT', async () => {
    expect(() => startOf(DEVICE, saving(), at(1n))).toThrow('only 0 bytes have been sent')
  })

  test('says which bytes are lost when they are no longer kept: SESSION_BROKEN', async () => {
    const chunk = Buffer.alloc(LIMITS.chunkBytes, 1)
    const session = await brokenOff(...Array.from({ length: 40 }, () => chunk))
    const { start, end } = session.kept

    expect(end - start).toBeGreaterThan(12n << 20n)
    expect(startOf(DEVICE, session, at(start))).toBe(start)
    expect(() => startOf(DEVICE, session, at(start - 2n))).toThrow(
      expect.objectContaining({
        reason: 'SESSION_BROKEN',
        message: `Cannot continue reading session 1 of dev: bytes ${start - 2n}..${start - 1n} are lost: the daemon keeps those from ${start} on; reset the device and start again`,
      }),
    )
  })
})

describe('the kept bytes of a session that ended', () => {
  test('stay for a reader that is under way, and go with it', async () => {
    const session = saving(Buffer.from('one'))
    takeSession({ name: 'dev', session }, ANY)
    const chunks = readChunks(session, 0n, never)
    const { value } = await chunks.next()

    await session.end()
    const during = [...session.kept.from(0n)]
    session.leave()

    expect(during).toEqual([value])
    expect([...session.kept.from(0n)]).toEqual([])
  })
})

describe('writing a session', () => {
  test('gives the device the rest when it takes only a part', async () => {
    const taken: string[] = []
    const kernel = {
      write: async (_fd: number, from: Uint8Array) => {
        const part = from.subarray(0, 3)
        taken.push(Buffer.from(part).toString())
        return part.length
      },
    } as unknown as Kernel
    const session = new Session({ id: 1, stream: streamOf(kernel), isSaving: false })

    await writeAll(session, Buffer.from('abcdefgh'))

    expect(taken).toEqual(['abc', 'def', 'gh'])
    expect(session.bytes).toBe(8n)
  })
})

describe('a session', () => {
  test('has one user at a time: SESSION_BUSY', () => {
    const holder = { name: 'dev', session: saving() }
    takeSession(holder, ANY)

    expect(() => takeSession(holder, ANY)).toThrow(
      expect.objectContaining({ reason: 'SESSION_BUSY' }),
    )
  })

  test('of the other direction is none: NO_SUCH_SESSION', () => {
    const wanted = { direction: 'resuming', id: 0n } as const

    expect(() => takeSession({ name: 'dev', session: saving() }, wanted)).toThrow(
      expect.objectContaining({ reason: 'NO_SUCH_SESSION' }),
    )
  })

  test('that was named and is over is not another one: NO_SUCH_SESSION', () => {
    const holder = { name: 'dev', session: saving() }

    expect(() => takeSession(holder, { ...ANY, id: 2n })).toThrow(
      'Cannot read session 2 of dev: the device is in session 1; start again with its first byte',
    )
    expect(takeSession(holder, { ...ANY, id: 1n })).toBe(holder.session)
  })

  test('closes its fd only after a read that is under way', async () => {
    const order: string[] = []
    let finish = () => {}
    const kernel = {
      close: async () => {
        order.push('close')
        return 0
      },
    } as unknown as Kernel
    const session = new Session({ id: 1, stream: streamOf(kernel), isSaving: true })
    const holder = { name: 'dev', session: session as Session | undefined }
    const read = session.use(async () => {
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      order.push('read')
    })
    const dropped = dropSession(holder)
    await Promise.resolve()

    finish()
    await Promise.all([read, dropped])

    expect(order).toEqual(['read', 'close'])
    await expect(session.use(async () => 0)).rejects.toMatchObject({ reason: 'SESSION_BROKEN' })
  })
})
