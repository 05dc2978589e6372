import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { DataFd } from '../../src/base/units.ts'
import {
  dropSession,
  readChunks,
  Session,
  takeSession,
  writeAll,
} from '../../src/domain/migration/session.ts'
import type { Kernel } from '../../src/kernel/port.ts'

/** A kernel whose data_fd gives these answers to reads, one after another, then 0. */
function reading(...answers: (Buffer | number)[]): Kernel & { closed: number[]; reads: number } {
  const kernel = {
    closed: [] as number[],
    reads: 0,
    read: async (_fd: number, into: Uint8Array) => {
      const next = answers[kernel.reads] ?? 0
      kernel.reads += 1
      if (typeof next === 'number') return next
      into.set(next)
      return next.length
    },
    close: async (fd: number) => {
      kernel.closed.push(fd)
      return 0
    },
  }
  return kernel as unknown as Kernel & { closed: number[]; reads: number }
}

const saving = () => new Session({ id: 1, dataFd: 9 as DataFd, isSaving: true })
const never = new AbortController().signal

async function contents(kernel: Kernel, session: Session, signal = never): Promise<string> {
  let text = ''
  for await (const { buffer, headRoom, length } of readChunks(kernel, session, signal)) {
    text += buffer.subarray(headRoom, headRoom + length).toString()
  }
  return text
}

describe('reading a session', () => {
  test('gives every byte in order, until the device has none', async () => {
    const session = saving()
    const kernel = reading(Buffer.from('one '), Buffer.from('two '), Buffer.from('three'))

    expect(await contents(kernel, session)).toBe('one two three')
    expect(session.bytes).toBe(13n)
  })

  test('takes ENOMSG for the end of what there is now', async () => {
    const kernel = reading(Buffer.from('initial'), -ERRNO.ENOMSG)

    expect(await contents(kernel, saving())).toBe('initial')
  })

  test('keeps what it read ahead for the next reader when one leaves', async () => {
    const session = saving()
    const kernel = reading(Buffer.from('one '), Buffer.from('two '), Buffer.from('three'))
    for await (const _ of readChunks(kernel, session, never)) break

    expect(session.bytes).toBe(4n)
    expect(await contents(kernel, session)).toBe('two three')
    expect(session.bytes).toBe(13n)
  })

  test('keeps what was read when the call is cancelled meanwhile', async () => {
    const session = saving()
    const kernel = reading(Buffer.from('one'))
    const cancelled = new AbortController()
    const chunks = readChunks(kernel, session, cancelled.signal)
    const first = chunks.next()
    cancelled.abort()

    expect((await first).done).toBe(true)
    expect(await contents(kernel, session)).toBe('one')
  })

  test('fails with what the kernel said, after the bytes before it', async () => {
    const session = saving()
    const kernel = reading(Buffer.from('one'), -ERRNO.ENODEV)
    const seen: number[] = []

    const read = async () => {
      for await (const chunk of readChunks(kernel, session, never)) seen.push(chunk.length)
    }

    await expect(read()).rejects.toMatchObject({ reason: 'SESSION_BROKEN' })
    expect(seen).toEqual([3])
  })

  test('never hands out more than one chunk holds', async () => {
    const kernel = reading(Buffer.alloc(LIMITS.chunkBytes, 1))

    for await (const chunk of readChunks(kernel, saving(), never)) {
      expect(chunk.length).toBe(LIMITS.chunkBytes)
    }
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
    const session = new Session({ id: 1, dataFd: 9 as DataFd, isSaving: false })

    await writeAll(kernel, session, Buffer.from('abcdefgh'))

    expect(taken).toEqual(['abc', 'def', 'gh'])
    expect(session.bytes).toBe(8n)
  })
})

describe('a session', () => {
  test('has one user at a time: SESSION_BUSY', () => {
    const holder = { name: 'dev', session: saving() }
    takeSession(holder, 'saving')

    expect(() => takeSession(holder, 'saving')).toThrow(
      expect.objectContaining({ reason: 'SESSION_BUSY' }),
    )
  })

  test('of the other direction is none: NO_SUCH_SESSION', () => {
    expect(() => takeSession({ name: 'dev', session: saving() }, 'resuming')).toThrow(
      expect.objectContaining({ reason: 'NO_SUCH_SESSION' }),
    )
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
    const holder = { name: 'dev', session: saving() as Session | undefined }
    const session = holder.session
    const read = session?.use(async () => {
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      order.push('read')
    })
    const dropped = dropSession(kernel, holder)
    await Promise.resolve()

    finish()
    await Promise.all([read, dropped])

    expect(order).toEqual(['read', 'close'])
    await expect(session?.use(async () => 0)).rejects.toMatchObject({ reason: 'SESSION_BROKEN' })
  })
})
