/** Mailboxes: one reader, items that join, a limit. */

import { describe, expect, test } from 'vitest'
import { Mailbox } from '../../src/base/mailbox.ts'

/** Reads so many items and leaves. */
async function take<Item>(mailbox: Mailbox<Item>, count: number): Promise<Item[]> {
  const items: Item[] = []
  for await (const item of mailbox.read(new AbortController().signal)) {
    items.push(item)
    if (items.length === count) break
  }
  return items
}

describe('a mailbox', () => {
  test('gives items in the order in which they came', async () => {
    const mailbox = new Mailbox<number>()
    for (const item of [1, 2, 3]) mailbox.push(item)

    expect(await take(mailbox, 3)).toEqual([1, 2, 3])
  })

  test('wakes a reader that waits', async () => {
    const mailbox = new Mailbox<string>()
    const taken = take(mailbox, 1)
    await Promise.resolve()
    mailbox.push('late')

    expect(await taken).toEqual(['late'])
  })

  test('joins what waits under the same key, which keeps its place', async () => {
    const mailbox = new Mailbox<number>({ join: (waiting, added) => waiting + added })
    mailbox.push(1, 'a')
    mailbox.push(10, 'b')
    mailbox.push(2, 'a')

    expect(await take(mailbox, 2)).toEqual([3, 10])
  })

  test('replaces what waits under the same key where nothing joins them', async () => {
    const mailbox = new Mailbox<string>()
    mailbox.push('old', 'a')
    mailbox.push('new', 'a')

    expect(await take(mailbox, 1)).toEqual(['new'])
  })

  test('ends a reader that is too far behind, and keeps no more than the limit', async () => {
    const overflow = (waiting: number) => new Error(`${waiting} wait`)
    const mailbox = new Mailbox<number>({ limit: 2, overflow })
    for (const item of [1, 2, 3, 4]) mailbox.push(item)

    await expect(take(mailbox, 1)).rejects.toThrow('2 wait')
  })

  test('ends with its signal, also while its reader waits', async () => {
    const end = new AbortController()
    const reading = new Mailbox<number>().read(end.signal).next()
    end.abort()

    expect(await reading).toEqual({ done: true, value: undefined })
  })
})
