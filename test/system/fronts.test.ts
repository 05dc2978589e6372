// The processes that speak with clients: what they may do, and what their end costs.

import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, startDaemon, until } from './world.ts'

let daemon: Daemon
let client: VfiodClient

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
})
afterAll(async () => {
  const code = await daemon.stop()
  expect(code, daemon.output()).toBe(0)
})

/** The children of a process, by what the kernel says of its threads. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter((text) => text !== '')
    .map(Number)

const fronts = (): number[] => childrenOf(daemon.process.pid ?? 0)

const statusOf = (pid: number): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readFileSync(`/proc/${pid}/status`, 'utf8')
      .split('\n')
      .map((line) => line.split(/:\s*/) as [string, string]),
  )

const logged = (text: string): number => daemon.output().split(text).length - 1

describe('a front', () => {
  test('has given up its rights, and is not root where the daemon may choose', async () => {
    await client.ownership.whoAmI()

    const [pid] = fronts()
    const { Seccomp, NoNewPrivs, Uid = '', CapEff } = statusOf(pid as number)

    expect([Seccomp, NoNewPrivs]).toEqual(['2', '1'])
    if (process.getuid?.() === 0) {
      expect(Uid.split('\t')).toEqual(Array(4).fill('65534'))
      expect(CapEff).toBe('0000000000000000')
    }
  })

  test.each(['SIGKILL', 'SIGABRT'] as const)(
    'that ends by %s costs its connections, and nothing that a client owns',
    async (signal) => {
      await client.addressSpace.createSpace({ spaceId: 'kept' })
      const watching = async () => {
        for await (const _ of client.ownership.watchEvents());
      }
      const watch = watching()
      watch.catch(() => undefined)
      const before = logged('front ended')

      process.kill(fronts()[0] as number, signal)

      await expect(watch).rejects.toMatchObject({ status: 'UNAVAILABLE' })
      await until(() => logged('front ended') === before + 1)
      const again = daemon.client()
      expect((await again.addressSpace.listSpaces()).spaces).toMatchObject([{ spaceId: 'kept' }])
      await again.addressSpace.destroySpace({ spaceId: 'kept' })
    },
  )
})
