// Every RPC of every service, called badly: with nothing, with ids that do not exist or belong to
// somebody else, with numbers that are too large or unaligned, with batches that are too long. Each
// is refused with the reason that is written down, or harmless, and nothing of the owner's changes.
//
// The calls are made from the loaded protos, so an RPC that is new has no entry, and fails.

import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { REASONS, type Reason } from '../../src/base/error.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { methodsOf, type ServiceName, services } from '../../src/wire/protos.ts'
import { type BadRequest, badRequests, type World } from './bad-requests.ts'
import { type Answer, ClientProcess } from './client-process.ts'
import { EXPECTED } from './every-rpc.ts'
import { startServer, type TestServer, until } from './server.ts'

const EDU = '0000:00:04.0'
/** A device that migrates. */
const MTTY = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001'

/** What the owner has, as requests name it. */
const worldOf = (service: ServiceName): World => ({
  ids: {
    spaceId: 'owned',
    memoryId: 'owned',
    name: service === 'migration' ? MTTY : EDU,
    devices: EDU,
    driver: 'vfio-pci',
    groupId: 3,
    region: 0,
  },
})

let server: TestServer
let owner: VfiodClient
/** Owns nothing; a process of its own, because an owner is a process. */
let stranger: ClientProcess

beforeAll(async () => {
  server = await startServer()
  owner = server.client()
  stranger = new ClientProcess(server.socket)
  const { addressSpace, device, inventory, memory } = owner
  await inventory.bindDevices({ devices: [EDU] })
  await addressSpace.createSpace({ spaceId: 'owned' })
  await addressSpace.addGroup({ spaceId: 'owned', groupId: 3 })
  await memory.allocateMemory({ memoryId: 'owned', length: '65536' })
  const item = { iova: '65536', length: '8192', memoryId: 'owned' }
  await addressSpace.map({ spaceId: 'owned', items: [{ ...item, access: 'ACCESS_READ_WRITE' }] })
  await device.openDevice({ spaceId: 'owned', name: EDU })
  const mtty = (await inventory.getDevice({ name: MTTY })).device
  await addressSpace.createSpace({ spaceId: 'migrates' })
  await addressSpace.addGroup({ spaceId: 'migrates', groupId: mtty?.groupId ?? 0 })
  await device.openDevice({ spaceId: 'migrates', name: MTTY })
})
afterAll(async () => {
  await stranger.kill()
  await server.stop()
})

/** What it made is gone with it, so that no later call finds it. */
const replaceStranger = async (): Promise<void> => {
  await stranger.kill()
  await until(() => server.domain.spaces.list().length === 2)
  stranger = new ClientProcess(server.socket)
}

/** Everything of the owner's, and the host. */
const present = async (): Promise<string> => {
  const { addressSpace, device, dirty, inventory, memory, migration } = owner
  const { spaces } = await addressSpace.listSpaces()
  return JSON.stringify(
    [
      await inventory.listGroups(),
      spaces.filter((space) => space.owner?.process?.pid === process.pid),
      await addressSpace.listMappings({ spaceId: 'owned' }),
      await memory.listMemory(),
      await device.getDeviceInfo({ name: EDU }),
      await migration.getMigrationState({ name: MTTY }),
      await dirty.getTracking({ spaceId: 'owned' }),
    ],
    null,
    1,
  )
}

const asOwner = async (service: ServiceName, method: string, request: object): Promise<Answer> => {
  type AnyCall = (request: unknown) => Promise<object> | AsyncIterable<object>
  const calls = owner[service] as unknown as Readonly<Record<string, AnyCall>>
  try {
    const answer = calls[method]?.(method === 'writeSession' ? [request] : request) ?? {}
    if (!(Symbol.asyncIterator in answer)) return { result: await answer }
    for await (const message of answer as AsyncIterable<object>) return { result: message }
    return { result: null }
  } catch (error) {
    return { error: error as NonNullable<Answer['error']> }
  }
}

/** A reason, OK, or for a batch the reasons of its items. */
const outcomeOf = ({ result, error }: Answer): string => {
  if (error !== undefined) return error.reason || error.status
  const items: { readonly reason: string }[] = result?.results ?? []
  const reasons = [...new Set(items.map(({ reason }) => reason || 'OK'))]
  return reasons.length === 0 ? 'OK' : `items: ${reasons.join(', ')}`
}

const lowerFirst = (name: string): string => name.charAt(0).toLowerCase() + name.slice(1)

const send = async (
  service: ServiceName,
  name: string,
  { request, from }: BadRequest,
): Promise<string> => {
  const method = lowerFirst(name)
  if (from === 'owner') return outcomeOf(await asOwner(service, method, request))
  return outcomeOf(await stranger.call(service, method, request))
}

const rpcs = (Object.keys(services) as ServiceName[]).flatMap((service) =>
  methodsOf(service).map(([name, method]) => ({ service, name, method })),
)

describe.each(rpcs)('$service $name', ({ service, name, method }) => {
  const requests = badRequests(method, worldOf(service))

  test('refuses what is bad about a request as it is written down, and changes nothing', async () => {
    const before = await present()

    const outcomes: Record<string, string> = {}
    for (const bad of requests) outcomes[bad.kind] = await send(service, name, bad)

    expect(outcomes).toEqual(EXPECTED[`${service}.${name}`])
    expect(await present()).toBe(before)
    if (/^(Create|Register|Allocate)/.test(name)) await replaceStranger()
  })
})

test('has no row for an RPC that does not exist', () => {
  const names = rpcs.map(({ service, name }) => `${service}.${name}`)

  expect(Object.keys(EXPECTED).sort()).toEqual(names.sort())
})

describe('the reasons', () => {
  const PROTO = new URL('../../proto/vfiod/v1/', import.meta.url)
  const text = readdirSync(PROTO)
    .map((file) => readFileSync(new URL(file, PROTO), 'utf8'))
    .join('\n')

  /** Reasons that any call may have; the services say nothing of them. */
  const GENERAL: readonly string[] = [
    'BAD_ARGUMENT',
    'ROLE_NEEDED',
    'LIMIT_REACHED',
  ] satisfies Reason[]

  /** The comment above an RPC and the one above its service. */
  const documented = (service: string, name: string): string => {
    const above = (declaration: RegExp): string => {
      const [, comment = ''] =
        new RegExp(`((?:^ *//.*\\n)+)^ *${declaration.source}`, 'm').exec(text) ?? []
      return comment
    }
    const capital = service.charAt(0).toUpperCase() + service.slice(1)
    const own = above(new RegExp(`rpc ${name}\\(`))
    const [, other] = /as\s+(?:\/\/\s+)?(\w+)/.exec(own) ?? []
    const inherited = other === undefined ? '' : above(new RegExp(`rpc ${other}\\(`))
    return own + inherited + above(new RegExp(`service ${capital}Service`))
  }

  test.each(rpcs)('of $service $name are those that its proto lists', ({ service, name }) => {
    const told = documented(service, name)
    const outcomes = Object.values(EXPECTED[`${service}.${name}`] ?? {})
    const reasons = outcomes.flatMap((outcome) => outcome.match(/[A-Z]+_[A-Z_]+/g) ?? [])

    const untold = reasons.filter((reason) => !GENERAL.includes(reason) && !told.includes(reason))

    expect([...new Set(untold)]).toEqual([])
    expect(reasons.filter((reason) => !(reason in REASONS))).toEqual([])
  })
})
