// Health and reflection, asked by clients that are not ours: buf is written in Go.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { service as healthService } from 'grpc-health-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ServiceName, services } from '../../src/wire/protos.ts'
import { refusal, startServer, type TestServer, until } from './server.ts'

const BUF = fileURLToPath(new URL('../../node_modules/.bin/buf', import.meta.url))

let server: TestServer
beforeEach(async () => {
  server = await startServer()
})
afterEach(() => server.stop())

/** `buf curl`, which learns the API by reflection. */
const bufCurl = async (...args: readonly string[]): Promise<string> => {
  const connection = [
    '--protocol',
    'grpc',
    '--http2-prior-knowledge',
    '--unix-socket',
    server.socket,
  ]
  const { stdout } = await promisify(execFile)(BUF, ['curl', ...connection, ...args])
  return stdout
}

const fullNames = Object.keys(services).map(
  (name) => `vfiod.v1.${name.charAt(0).toUpperCase()}${name.slice(1)}Service`,
)

interface Health {
  readonly status?: string
}

const health = (service: string): Promise<Health | { readonly code: number }> =>
  new Promise((resolve) => {
    const { Check } = healthService as unknown as Record<string, (typeof services)[ServiceName]['']>
    if (Check === undefined) throw new Error('the health service has no Check')
    server
      .client()
      .channel.makeUnaryRequest(
        Check.path,
        Check.requestSerialize,
        Check.responseDeserialize,
        { service },
        (error, response) => resolve(error ?? (response as Health)),
      )
  })

describe('health', () => {
  test.each(['', ...fullNames])('of "%s" is SERVING', async (name) => {
    expect(await health(name)).toEqual({ status: 'SERVING' })
  })

  test('of a service that there is not is NOT_FOUND', async () => {
    expect(await health('vfiod.v1.NoService')).toMatchObject({ code: 5 })
  })

  test('is NOT_SERVING while the daemon drains', async () => {
    const { channel } = server.client()
    const { Watch } = healthService as unknown as Record<string, (typeof services)[ServiceName]['']>
    if (Watch === undefined) throw new Error('the health service has no Watch')
    const seen: unknown[] = []
    const watch = channel.makeServerStreamRequest(
      Watch.path,
      Watch.requestSerialize,
      Watch.responseDeserialize,
      { service: '' },
    )
    watch.on('data', ({ status }) => seen.push(status)).on('error', () => undefined)
    await until(() => seen.length === 1)

    await server.api.drain(100)

    await until(() => seen.length === 2)
    expect(seen).toEqual(['SERVING', 'NOT_SERVING'])
    watch.cancel()
  })
})

describe('reflection', () => {
  test('lists every method of every service, health among them', async () => {
    const methods = await bufCurl('--list-methods', 'http://localhost')

    expect(methods).toContain('grpc.health.v1.Health/Check')
    for (const name of fullNames) expect(methods).toContain(`${name}/`)
  })

  test('lets a client that has no protos make a call', async () => {
    const answer = await bufCurl('http://localhost/vfiod.v1.InventoryService/ListDevices')

    expect(JSON.parse(answer).devices[0]).toMatchObject({ name: expect.any(String) })
  })

  test('lets such a client ask for health', async () => {
    const answer = await bufCurl('http://localhost/grpc.health.v1.Health/Check')

    expect(JSON.parse(answer)).toEqual({ status: 'SERVING' })
  })
})

describe('a refusal', () => {
  test('has its reason where a client in Go looks for it', async () => {
    const url = 'http://localhost/vfiod.v1.InventoryService/GetDevice'

    const { stderr } = (await refusal(bufCurl('--data', '{"name": "none"}', url))) as {
      readonly stderr: string
    }

    const { code, details } = JSON.parse(stderr)
    expect(code).toBe('not_found')
    expect(details[0].type).toBe('google.rpc.ErrorInfo')
    expect(Buffer.from(details[0].value, 'base64').toString()).toContain('NO_SUCH_DEVICE')
  })
})
