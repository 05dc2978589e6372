/** SimulatorService is there where the machine is simulated, for administrators, and nowhere else. */

import { afterEach, expect, test } from 'vitest'
import { EVERYTHING, refusal, startServer, type TestServer } from './server.ts'

let server: TestServer
afterEach(() => server.stop())

test('is not there where no simulator was handed over: UNIMPLEMENTED', async () => {
  server = await startServer({}, { isSimulated: false })

  expect(await refusal(server.client().simulator.step())).toMatchObject({ status: 'UNIMPLEMENTED' })
})

test('has 256 faults at most: LIMIT_REACHED', async () => {
  server = await startServer({})
  const { simulator } = server.client()
  const fault = (n: number) => ({
    fault: { fault: `fault ${n}`, kind: 'FAULT_KIND_ERRNO' as const, error: 'EIO', path: '/none' },
  })
  for (let n = 0; n < 256; n += 1) await simulator.injectFault(fault(n))

  expect(await refusal(simulator.injectFault(fault(256)))).toMatchObject({
    reason: 'LIMIT_REACHED',
  })
  // In the place of one of the same name.
  await simulator.injectFault(fault(0))
})

test('is for administrators: ROLE_NEEDED', async () => {
  server = await startServer({}, { grantOf: () => ({ ...EVERYTHING, role: 'operate' }) })

  expect(await refusal(server.client().simulator.listFaults())).toMatchObject({
    reason: 'ROLE_NEEDED',
  })
})
