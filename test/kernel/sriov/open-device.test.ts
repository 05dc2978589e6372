/** VF tokens through the API, on the real kernel. */

import { readdirSync, writeFileSync } from 'node:fs'
import { afterAll } from 'vitest'
import { vfTokenSystemSuite } from '../../system/vf-token-suite.ts'
import { eduDevices, startDaemon } from '../../system/world.ts'
import { physicalFunction } from './physical-function.ts'

const ENABLE = '/sys/module/vfio_pci/parameters/enable_sriov'

const setVfs = (pf: string, count: number): void =>
  writeFileSync(`/sys/bus/pci/devices/${pf}/sriov_numvfs`, String(count))

// Registered first, so that it runs last: the daemon is gone by then.
afterAll(() => {
  setVfs(physicalFunction(), 0)
  writeFileSync(ENABLE, 'N')
  for (const name of readdirSync('/sys/bus/pci/drivers/vfio-pci'))
    if (name.includes('.')) writeFileSync('/sys/bus/pci/drivers/vfio-pci/unbind', name)
})

vfTokenSystemSuite('linux', async () => {
  const pf = physicalFunction()
  const daemon = await startDaemon()
  const client = daemon.client()
  const [plain = ''] = await eduDevices(client)
  await client.inventory.bindDevices({ devices: [pf, plain] })
  writeFileSync(ENABLE, 'Y')
  setVfs(pf, 2)
  return { daemon, plain }
})
