/** SimulatorService is there where the machine is simulated, for administrators, and nowhere else. */

import { afterEach, expect, test } from 'vitest'
import { EVERYTHING, refusal, startServer, type TestServer } from './server.ts'

let server: TestServer
afterEach(() => server.stop())

test('is not there where no simulator was handed over: UNIMPLEMENTED', async () => {
  server = await startServer({}, { isSimulated: false })

  expect(await refusal(server.client().simulator.step())).toMatchObject({ status: 'UNIMPLEMENTED' })
})

test('is for administrators: ROLE_NEEDED', async () => {
  server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, role: 'operate' }) })

  expect(await refusal(server.client().simulator.listFaults())).toMatchObject({
    reason: 'ROLE_NEEDED',
  })
})
