// SIGHUP, and the files that it reads again: what a daemon takes, what it keeps, what it refuses to
// start with.

import { chmodSync } from 'node:fs'
import { credentials } from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import type { Certificates } from '../../src/link/records.ts'
import { Authority } from '../api/certificates.ts'
import { DaemonProcess, until } from './daemon-process.ts'

const ADMIN = '[[rule]]\nrole = "admin"\n'
const OBSERVE = '[[rule]]\nrole = "observe"\n'
const REMOTE = '[[rule]]\nremote = "spiffe://host-b"\nrole = "observe"\n'

const KEPT = 'not reloaded: what was in force stays'

let daemon: DaemonProcess
let authority: Authority
let other: Authority
const clients: VfiodClient[] = []

const keep = (client: VfiodClient): VfiodClient => {
  clients.push(client)
  return client
}

const client = (): VfiodClient => keep(connect({ socket: daemon.socket }))

const remoteClient = ({ ca, cert, key }: Certificates): VfiodClient => {
  const [{ remotePort } = {}] = daemon.logged('ready')
  return keep(
    connect({
      address: `localhost:${remotePort}`,
      credentials: credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert)),
    }),
  )
}

/** Configuration keys that name what is written beside the socket. */
const tls = ({ ca, cert, key }: Certificates) => ({
  listen: 'localhost:0',
  tls_ca: daemon.write('ca.pem', ca),
  tls_cert: daemon.write('cert.pem', cert),
  tls_key: daemon.write('key.pem', key),
})

/** SIGHUP, and what the log says of it. */
const reload = async () => {
  const lines = () => [...daemon.logged('reloaded'), ...daemon.logged(KEPT)]
  const before = lines().length
  daemon.signal('SIGHUP')
  await until(() => lines().length > before)
}

beforeAll(() => {
  authority = new Authority()
  other = new Authority()
})
beforeEach(() => {
  daemon = new DaemonProcess()
})
afterEach(async () => {
  for (const made of clients.splice(0)) made.close()
  await daemon.remove()
})
afterAll(() => {
  authority.remove()
  other.remove()
})

describe('SIGHUP', () => {
  test('takes a new policy, which holds from the next call on, and for what is there', async () => {
    await daemon.start({ policy: daemon.write('policy.toml', ADMIN) })
    const { addressSpace } = client()
    await addressSpace.createSpace({ spaceId: 'a' })
    daemon.write('policy.toml', OBSERVE)

    await reload()

    await expect(addressSpace.createSpace({ spaceId: 'b' })).rejects.toMatchObject({
      reason: 'ROLE_NEEDED',
    })
    const { spaces } = await addressSpace.listSpaces()
    expect(spaces.map(({ spaceId }) => spaceId)).toEqual(['a'])
    expect(daemon.logged('reloaded')).toMatchObject([{ audit: true }])
  })

  test.each([
    ['a key that there is not', 'rol = "none"\n'],
    ['what is no TOML', '[[rule'],
  ])('keeps the policy when the new one has %s, and says so', async (_what, text) => {
    await daemon.start({ policy: daemon.write('policy.toml', ADMIN) })
    const path = daemon.write('policy.toml', text)

    await reload()

    const { policy, policyStatus } = await client().admin.getConfiguration()
    expect(policy).toContain('role = "admin"')
    expect(policyStatus).toContain('an older one: Cannot')
    expect(policyStatus).toContain(path)
    expect(daemon.logged(KEPT)).toMatchObject([{ refusal: expect.stringContaining(path) }])
    daemon.write('policy.toml', ADMIN)
    await reload()
    expect((await client().admin.getConfiguration()).policyStatus).toBe(`loaded from ${path}`)
  })

  test('takes new certificates, and another authority ends the connections of the former one', async () => {
    const config = tls(authority.issue('DNS:localhost'))
    await daemon.start({ policy: daemon.write('policy.toml', ADMIN + REMOTE), ...config })
    const old = remoteClient(authority.issue('URI:spiffe://host-b'))
    await old.inventory.listGroups()
    tls(other.issue('DNS:localhost'))

    await reload()

    const fresh = remoteClient(other.issue('URI:spiffe://host-b'))
    await expect(fresh.inventory.listGroups()).resolves.toBeDefined()
    await expect(old.inventory.listGroups()).rejects.toMatchObject({ status: 'UNAVAILABLE' })
    const late = remoteClient(authority.issue('URI:spiffe://host-b'))
    await expect(late.inventory.listGroups()).rejects.toMatchObject({ status: 'UNAVAILABLE' })
  })

  test('keeps certificates when the new ones do not fit, and takes the policy with them', async () => {
    const config = tls(authority.issue('DNS:localhost'))
    await daemon.start({ policy: daemon.write('policy.toml', ADMIN), ...config })
    daemon.write('key.pem', other.issue('DNS:localhost').key)
    daemon.write('policy.toml', REMOTE)

    await reload()

    const remote = remoteClient(authority.issue('URI:spiffe://host-b'))
    await expect(remote.inventory.listGroups()).resolves.toBeDefined()
    expect(daemon.logged(KEPT)).toMatchObject([
      { refusal: expect.stringContaining('Cannot use the certificates') },
    ])
  })

  test.each(['cert.pem', 'key.pem'])('keeps certificates when %s is empty', async (file) => {
    const config = tls(authority.issue('DNS:localhost'))
    await daemon.start({ policy: daemon.write('policy.toml', REMOTE), ...config })
    daemon.write(file, '')

    await reload()

    const remote = remoteClient(authority.issue('URI:spiffe://host-b'))
    await expect(remote.inventory.listGroups()).resolves.toBeDefined()
  })

  test('takes new certificates although the policy is wrong', async () => {
    const config = tls(authority.issue('DNS:localhost'))
    await daemon.start({ policy: daemon.write('policy.toml', ADMIN + REMOTE), ...config })
    tls(other.issue('DNS:localhost'))
    daemon.write('policy.toml', 'nonsense = 1')

    await reload()

    const fresh = remoteClient(other.issue('URI:spiffe://host-b'))
    await expect(fresh.inventory.listGroups()).resolves.toBeDefined()
  })
})

describe('a daemon does not start, and says why, with', () => {
  const refused = async (config: Readonly<Record<string, unknown>>, why: string) => {
    expect(await daemon.run(config)).toBe(78)
    expect(daemon.stderr).toContain(why)
    expect(daemon.stderr).not.toContain('    at ')
  }

  test.each(['tls_ca', 'tls_cert', 'tls_key'] as const)('listen and no %s', async (missing) => {
    const { [missing]: _, ...config } = tls(authority.issue('DNS:localhost'))

    await refused(config, 'tls_ca, tls_cert and tls_key are all needed')
  })

  test('a key that is not of the certificate', async () => {
    const { key } = authority.issue('DNS:localhost')

    await refused(tls({ ...authority.issue('DNS:localhost'), key }), 'Cannot use the certificates')
  })

  test.each(['ca', 'cert', 'key'] as const)('a %s that is none, or empty', async (name) => {
    for (const text of ['nothing\n', '']) {
      const config = tls({ ...authority.issue('DNS:localhost'), [name]: text })

      await refused(config, 'Cannot use the certificates')
    }
  })

  test.each(['policy', 'tls_key'] as const)('a %s that every user could write', async (name) => {
    const config = {
      policy: daemon.write('policy.toml', ADMIN),
      ...tls(authority.issue('DNS:localhost')),
    }
    chmodSync(config[name], 0o646)

    await refused(config, `Cannot trust ${config[name]}: every user may write it (mode 646)`)
  })

  test('a certificate that is not there', async () => {
    const config = { ...tls(authority.issue('DNS:localhost')), tls_cert: '/no/such/file' }

    await refused(config, 'Cannot read /no/such/file: ENOENT')
  })

  test('a listen that is not a HOST:PORT', async () => {
    await refused({ ...tls(authority.issue('DNS:localhost')), listen: '7443' }, 'HOST:PORT')
  })

  test.each([
    ['is wrong', '[[rule]]\nrole = "king"\n', 'Cannot use the policy'],
    ['is no TOML', '[[rule', 'Cannot read'],
  ])('a policy that %s', async (_what, text, why) => {
    await refused({ policy: daemon.write('policy.toml', text) }, why)
  })
})
