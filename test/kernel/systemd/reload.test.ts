// The unit as an administrator changes it: another policy by systemctl reload, clients on other hosts
// by the drop-in that ships.

import { credentials } from '@grpc/grpc-js'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { connect } from '../../../src/client/client.ts'
import { Authority } from '../../api/certificates.ts'
import { until } from '../../system/world.ts'
import {
  allowRemote,
  cleanUp,
  client,
  configure,
  file,
  install,
  keep,
  property,
  systemctl,
  uninstall,
} from './installed.ts'

const PORT = 7443
const ADMIN = '[[rule]]\nrole = "admin"\n'
const OBSERVE = '[[rule]]\nrole = "observe"\n'

beforeAll(install)
afterEach(cleanUp)
afterAll(uninstall)

test('systemctl reload puts a changed policy in force, and not a wrong one', async () => {
  configure(`policy = "${file('policy.toml', ADMIN)}"\n`)
  systemctl('start', 'vfiod.service')
  const pid = property('MainPID')
  const role = async () => (await client().ownership.whoAmI()).role
  expect(await role()).toBe('ROLE_ADMIN')

  file('policy.toml', OBSERVE)
  systemctl('reload', 'vfiod.service')
  await until(async () => (await role()) === 'ROLE_OBSERVE')
  const refusal = { reason: 'ROLE_NEEDED' }
  await expect(client().addressSpace.createSpace({ spaceId: 's' })).rejects.toMatchObject(refusal)

  file('policy.toml', `${ADMIN}nonsense = 1\n`)
  systemctl('reload', 'vfiod.service')
  await until(() => property('StatusText').includes('not reloaded'))
  expect(await role()).toBe('ROLE_OBSERVE')
  expect(property('ActiveState')).toBe('active')
  expect(property('MainPID')).toBe(pid)
})

test('remote.conf and certificates let clients of other hosts in', async () => {
  const authority = new Authority()
  const daemon = authority.issue('DNS:localhost')
  const { ca, cert, key } = authority.issue('URI:spiffe://host-b')
  authority.remove()
  configure(
    [
      `policy = "${file('policy.toml', '[[rule]]\nremote = "spiffe://host-b"\nrole = "observe"\n')}"`,
      `listen = "127.0.0.1:${PORT}"`,
      `tls_ca = "${file('ca.pem', daemon.ca)}"`,
      `tls_cert = "${file('cert.pem', daemon.cert)}"`,
      `tls_key = "${file('key.pem', daemon.key)}"`,
    ].join('\n'),
  )
  allowRemote()
  systemctl('start', 'vfiod.service')

  const remote = keep(
    connect({
      address: `localhost:${PORT}`,
      credentials: credentials.createSsl(Buffer.from(ca), Buffer.from(key), Buffer.from(cert)),
    }),
  )
  const who = await remote.ownership.whoAmI()

  expect(who).toMatchObject({ identity: 'remote spiffe://host-b', role: 'ROLE_OBSERVE' })
})
