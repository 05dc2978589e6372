// On whose account a call is, down to the kernel: its share of the threads is that account's.

import { afterEach, expect, test } from 'vitest'
import { currentAccount } from '../../src/os/thread-shares.ts'
import { startServer, type TestServer } from './server.ts'

const ACCOUNT = `uid ${process.getuid?.() ?? 0}`

let server: TestServer
afterEach(() => server.stop())

test('a call, and a stream for as long as it lasts, are on the account of their client', async () => {
  const seen: (string | undefined)[] = []
  server = await startServer({
    inventory: {
      groups: async () => {
        await Promise.resolve()
        seen.push(currentAccount())
        return []
      },
      whyEmpty: async () => '',
    },
    async *watchEvents() {
      for (let n = 0; n < 3; n += 1) {
        await new Promise((resolve) => setImmediate(resolve))
        seen.push(currentAccount())
        yield { kind: 'released', clients: [], client: '', why: '', spaces: 0, memories: 0 }
      }
    },
  })
  const client = server.client()

  await client.inventory.listGroups()
  for await (const _ of client.ownership.watchEvents({}));

  expect(seen).toEqual([ACCOUNT, ACCOUNT, ACCOUNT, ACCOUNT])
  expect(currentAccount()).toBeUndefined()
})
