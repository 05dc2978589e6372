/** VF tokens through the API, on a simulated machine with an SR-IOV device. */

import { vfTokenSystemSuite } from '../system/vf-token-suite.ts'
import { eduDevices, startDaemon } from '../system/world.ts'

const MACHINE = `
extends = "default"
enable_sriov = true

[[functions]]
address = "0000:09:00.0"
group = 30
bound_driver = "vfio-pci"
pcie = true
reset = true
sriov = { total_vfs = 2, num_vfs = 2, first_group = 31, vf = {} }
`

vfTokenSystemSuite('sim', async () => {
  const daemon = await startDaemon(MACHINE)
  const client = daemon.client()
  const [plain = ''] = await eduDevices(client)
  await client.inventory.bindDevices({ devices: [plain] })
  const { devices } = await client.inventory.listDevices()
  const mdev = devices.find(({ mdevType }) => mdevType !== '')?.name ?? ''
  return { daemon, plain, mdev }
})
