/** Making virtual functions through the API, on the simulator. */

import { expect, test } from 'vitest'
import { virtualFunctionsSuite } from '../system/virtual-functions-suite.ts'
import { startDaemon } from '../system/world.ts'

const PF = '0000:09:00.0'
const machine = (words = '') => `
extends = "default"
${words}

[[functions]]
address = "${PF}"
group = 30
pcie = true
sriov = { total_vfs = 2, first_group = 31, vf = {} }
`

virtualFunctionsSuite('sim', async () => ({
  daemon: await startDaemon(machine('enable_sriov = true')),
  pf: PF,
}))

test('vfio-pci makes none without its parameter, which the refusal names', async () => {
  const daemon = await startDaemon(machine())
  const client = daemon.client()
  await client.inventory.bindDevices({ devices: [PF] })

  const made = client.inventory.setVirtualFunctions({ name: PF, count: 1 })

  await expect(made).rejects.toMatchObject({
    reason: 'UNSUPPORTED',
    message: expect.stringContaining(
      'vfio-pci makes no virtual functions; write Y to /sys/module/vfio_pci/parameters/enable_sriov',
    ),
  })
  expect(await daemon.stop()).toBe(0)
})
