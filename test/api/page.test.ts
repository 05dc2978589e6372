// Lists in pages: every element once, and an answer no longer than was asked for.

import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { pageOf } from '../../src/api/services/page.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { allOf } from '../../src/client/verbs.ts'
import { startServer, type TestServer } from './server.ts'

describe('pages', () => {
  const itself = (key: string) => key

  test('have every element once, in order, whatever their size', () => {
    const keys = fc.uniqueArray(fc.string({ minLength: 1 }), { maxLength: 40 })
    fc.assert(
      fc.property(keys, fc.integer({ min: 1, max: 9 }), (all, pageSize) => {
        const seen: string[] = []
        let pageToken = ''
        do {
          const page = pageOf(all, itself, { pageSize, pageToken })
          expect(page.elements.length).toBeLessThanOrEqual(pageSize)
          seen.push(...page.elements)
          pageToken = page.nextPageToken
        } while (pageToken !== '')
        expect(seen).toEqual([...all].sort((a, b) => (a < b ? -1 : 1)))
      }),
    )
  })

  test('have 500 elements where no size is asked for, and 2,000 at most', () => {
    const all = Array.from({ length: 3000 }, (_, n) => String(n).padStart(4, '0'))

    expect(pageOf(all, itself, { pageSize: 0, pageToken: '' }).elements).toHaveLength(500)
    expect(pageOf(all, itself, { pageSize: 9999, pageToken: '' }).elements).toHaveLength(2000)
  })

  test('go on after an element that is gone meanwhile', () => {
    expect(pageOf(['a', 'c'], itself, { pageSize: 5, pageToken: 'b' }).elements).toEqual(['c'])
  })
})

describe('the lists of the API', () => {
  let server: TestServer
  let client: VfiodClient

  beforeAll(async () => {
    server = await startServer()
    client = server.client()
    for (const id of ['a', 'b', 'c']) {
      await client.addressSpace.createSpace({ spaceId: id })
      await client.memory.allocateMemory({ memoryId: id, length: '4096' })
    }
  })
  afterAll(() => server.stop())

  test('of address spaces and memory come in pages, and the kit joins them', async () => {
    const first = await client.addressSpace.listSpaces({ pageSize: 2 })
    const memory = await client.memory.listMemory({ pageSize: 2, pageToken: 'a' })
    const joined = await allOf('spaces', (page) =>
      client.addressSpace.listSpaces({ ...page, pageSize: 2 }),
    )

    expect([first.spaces.map(({ spaceId }) => spaceId), first.nextPageToken]).toEqual([
      ['a', 'b'],
      'b',
    ])
    expect(memory.memories.map(({ memoryId }) => memoryId)).toEqual(['b', 'c'])
    expect(memory.nextPageToken).toBe('')
    expect(joined.map(({ spaceId }) => spaceId)).toEqual(['a', 'b', 'c'])
  })

  test('of clients have those of the token no more', async () => {
    const { clients } = await client.admin.listClients({})
    const last = clients.at(-1)?.clientId ?? ''

    expect(clients.length).toBeGreaterThan(0)
    expect((await client.admin.listClients({ pageToken: last })).clients).toEqual([])
  })
})
