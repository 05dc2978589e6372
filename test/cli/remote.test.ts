// vfioctl and a daemon on another host: the options, the lease that it keeps, how it fails.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Certificates } from '../../src/link/records.ts'
import { type Grant, grantOf, type Policy } from '../../src/rules/policy.ts'
import { Authority } from '../api/certificates.ts'
import { EVERYTHING, startServer, type TestServer, until } from '../api/server.ts'
import { type Outcome, run, start } from './vfioctl.ts'

// Each run is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

/** vfioctl renews it three times in that time. */
const LEASE_MS = 1500
const EDU_GROUP = 3
const OPERATE: Grant = { ...EVERYTHING, role: 'operate' }
const policy: Policy = {
  rules: [
    { who: { kind: 'remote', name: 'spiffe://host-b' }, ...OPERATE },
    { who: { kind: 'local' }, ...EVERYTHING },
  ],
  total: {},
}

let authority: Authority
let server: TestServer
let folder: string

/** Write certificates to files, and answer the options that name them. */
const optionsFor = (name: string, { ca, cert, key }: Certificates): string[] =>
  Object.entries({ ca, cert, key }).flatMap(([kind, text]) => {
    const path = join(folder, `${name}.${kind}.pem`)
    writeFileSync(path, text)
    return [`--${kind}`, path]
  })

const address = (): string[] => ['--address', `localhost:${server.api.remotePort}`]

const vfioctl = (...args: string[]): Promise<Outcome> => run([...address(), ...args])

let hostB: string[]

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vfioctl-remote-'))
  authority = new Authority()
  hostB = optionsFor('host-b', authority.issue('URI:spiffe://host-b'))
  const certificates = authority.issue('DNS:localhost')
  server = await startServer(
    {},
    {
      grantOf: (identity) => grantOf(policy, identity),
      remote: { host: '127.0.0.1', port: 0, certificates, leaseMs: LEASE_MS },
    },
  )
  await server.client().inventory.bindDevices({ devices: ['0000:00:04.0'] })
})
afterAll(async () => {
  await server.stop()
  authority.remove()
  rmSync(folder, { recursive: true })
})

/** The clock of the daemon stands still, until a test moves it; vfioctl's goes on. */
const stopClock = (): void => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
}
afterEach(() => {
  vi.useRealTimers()
})

const renewals = (): number =>
  server.lines.filter(({ fields }) => String(fields.method).endsWith('/KeepAlive')).length

describe('vfioctl --address', () => {
  test('is to the daemon who its certificate says', async () => {
    const { code, stdout, stderr } = await vfioctl(...hostB, 'whoami')

    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^identity +remote spiffe:\/\/host-b\nlease +\d+ ms\nrole +operate\n/)
  })

  test('may do what the policy says of it, and no more', async () => {
    const { code, stderr } = await vfioctl(...hostB, 'clients')

    expect(code).toBe(1)
    expect(stderr).toContain('ROLE_NEEDED')
  })

  test('keeps what it holds for longer than a lease, and gives it back', async () => {
    stopClock()
    const group = String(EDU_GROUP)
    const holding = start([
      ...address(),
      ...hostB,
      ...['map', '--group', group, '--length', '4K', '--hold'],
    ])
    await holding.says('Ctrl-C ends')
    const [held] = server.domain.spaces.list()

    for (let n = 0; n < 3; n += 1) {
      const before = renewals()
      await until(() => renewals() > before)
      await vi.advanceTimersByTimeAsync(LEASE_MS - 1)
    }

    expect(held?.isClosed).toBe(false)
    holding.interrupt()
    expect(await holding.outcome).toMatchObject({ code: 0, stderr: '' })
    expect(server.domain.spaces.list()).toEqual([])
  })

  test('that is killed loses it when the lease runs out', async () => {
    stopClock()
    const group = String(EDU_GROUP)
    const holding = start([
      ...address(),
      ...hostB,
      ...['map', '--group', group, '--length', '4K', '--hold'],
    ])
    await holding.says('Ctrl-C ends')

    holding.kill()
    await holding.outcome

    // A last renewal may still be on its way.
    await until(() => {
      vi.advanceTimersByTime(LEASE_MS)
      return server.domain.spaces.list().length === 0
    })
  })
})

describe('vfioctl --address fails', () => {
  test('without all three files, beside --socket, or with the files alone: 2', async () => {
    const outcomes = await Promise.all([
      vfioctl('groups'),
      vfioctl(...hostB, '--socket', '/x', 'groups'),
      run([...hostB, 'groups']),
    ])

    expect(outcomes.map(({ code }) => code)).toEqual([2, 2, 2])
    expect(outcomes.map(({ stderr }) => stderr.split('\n')[0])).toEqual([
      'vfioctl: --address needs --ca, --cert and --key: the daemon takes no one without',
      'vfioctl: --address and --socket are two daemons; name one of them',
      'vfioctl: --ca, --cert and --key are for a daemon on another host; add --address',
    ])
  })

  test('with a file that is not there, or is not a certificate', async () => {
    const wrong = optionsFor('wrong', { ...authority.issue('URI:spiffe://c'), key: 'no key' })
    const outcomes = await Promise.all([
      vfioctl(...hostB.slice(0, 4), '--key', '/no/such/file', 'groups'),
      vfioctl(...wrong, 'groups'),
    ])

    expect(outcomes.map(({ code }) => code)).toEqual([1, 1])
    expect(outcomes[0]?.stderr).toContain('Cannot read "/no/such/file": no such file')
    expect(outcomes[1]?.stderr).toContain('Cannot use the certificates: ')
  })

  test('with a certificate that the daemon does not trust, and says what to see to', async () => {
    const other = new Authority()
    const stranger = other.issue('URI:spiffe://host-b')
    const { ca } = authority.issue('DNS:x')
    const options = optionsFor('stranger', { ...stranger, ca })
    other.remove()

    const { code, stderr } = await vfioctl(...options, 'groups')

    expect(code).toBe(1)
    expect(stderr).toContain(`Cannot reach the daemon on localhost:${server.api.remotePort}`)
    expect(stderr).toContain('a certificate the other trusts')
  })

  test('where the daemon has another name than the one it is called by', async () => {
    const [, place = ''] = address()
    const options = ['--address', place.replace('localhost', '127.0.0.1'), ...hostB]

    const { code, stderr } = await run([...options, 'groups'])

    expect(code).toBe(1)
    expect(stderr).toContain('Cannot reach the daemon on 127.0.0.1')
  })
})
