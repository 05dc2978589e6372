// Every RPC for every role: below the role that it needs it is refused, and with that role it is
// not refused for want of one. The cells are made from the loaded protos, so none can be forgotten.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { METHOD_POLICIES, type MethodPolicy } from '../../src/api/call/method-policy.ts'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Grant, ROLES, type Role } from '../../src/rules/policy.ts'
import { methodsOf, type ServiceName, services } from '../../src/wire/protos.ts'
import { EVERYTHING, startServer, type TestServer } from './server.ts'

let server: TestServer
let client: VfiodClient
let grant: Grant = EVERYTHING

beforeAll(async () => {
  server = await startServer({}, { grantOf: () => grant })
  client = server.client()
  // The connection is made while the policy grants something: otherwise it has few calls a second.
  await client.ownership.whoAmI()
})
afterAll(() => server.stop())

const reasonOf = async (service: ServiceName, method: string): Promise<string> => {
  type AnyCall = (request: unknown) => Promise<object> | AsyncIterable<object>
  const calls = client[service] as unknown as Readonly<Record<string, AnyCall>>
  try {
    const answer = calls[method]?.(method === 'writeSession' ? [{}] : {}) ?? {}
    if (!(Symbol.asyncIterator in answer)) await answer
    else for await (const _ of answer as AsyncIterable<object>) break
    return ''
  } catch (error) {
    return (error as { readonly reason: string }).reason
  }
}

const cells = (Object.keys(services) as ServiceName[]).flatMap((service) =>
  methodsOf(service).flatMap(([name]) => ROLES.map((role) => ({ service, name, role }))),
)

describe.each(cells)('$service $name for role $role', ({ service, name, role }) => {
  test('is refused below the role that it needs, and only then', async () => {
    const policy = (METHOD_POLICIES[service] as Readonly<Record<string, MethodPolicy>>)[name]
    const needed = ROLES.indexOf(policy?.role as Role)
    grant = { ...EVERYTHING, role }

    const reason = await reasonOf(service, name.charAt(0).toLowerCase() + name.slice(1))

    expect(reason === 'ROLE_NEEDED').toBe(ROLES.indexOf(role) < needed)
  })
})

test('there are as many cells as RPCs and roles', () => {
  const rpcs = (Object.keys(services) as ServiceName[]).flatMap(methodsOf)

  expect(cells).toHaveLength(rpcs.length * 4)
  expect(rpcs.length).toBeGreaterThan(50)
})

test('a refusal names the role that is needed, the role there is, and the identity', async () => {
  grant = { ...EVERYTHING, role: 'observe' }

  await expect(client.addressSpace.createSpace({})).rejects.toThrow(
    `it needs role operate and the policy grants uid ${process.getuid?.()} observe`,
  )
})

test('calls beyond the quota are refused, with when to try again', async () => {
  grant = { ...EVERYTHING, quota: { calls_per_second: 3n } }
  const calls = Array.from({ length: 20 }, () => client.ownership.whoAmI())

  const outcomes = await Promise.allSettled(calls)

  const refused = outcomes.filter(({ status }) => status === 'rejected')
  expect(refused.length).toBeGreaterThan(0)
  expect(refused[0]).toMatchObject({
    reason: { reason: 'LIMIT_REACHED', details: { quota: { max: 3n } } },
  })
  grant = EVERYTHING
})

test('what changes something is logged with who, on what, and the outcome; nothing else is', async () => {
  grant = EVERYTHING
  await client.addressSpace.createSpace({ spaceId: 'audited' })
  await client.addressSpace.addGroup({ spaceId: 'audited', groupId: 999 }).catch(() => undefined)
  await client.addressSpace.getSpace({ spaceId: 'audited' })
  const { token } = await client.ownership.handOver({})

  const audit = server.lines.filter(({ fields }) => fields.audit === true)
  const about = audit.filter(
    ({ fields }) => (fields.object as Record<string, unknown> | undefined)?.spaceId === 'audited',
  )

  expect(about.map(({ fields }) => fields)).toMatchObject([
    {
      method: 'vfiod.v1.AddressSpaceService/CreateSpace',
      identity: `uid ${process.getuid?.()}`,
      object: { spaceId: 'audited' },
    },
    {
      method: 'vfiod.v1.AddressSpaceService/AddGroup',
      object: { spaceId: 'audited', groupId: 999 },
      reason: 'NO_SUCH_GROUP',
    },
  ])
  expect(JSON.stringify(server.lines)).not.toContain(token)
})
