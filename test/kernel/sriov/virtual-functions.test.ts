/** Making virtual functions through the API, on the real kernel. */

import { writeFileSync } from 'node:fs'
import { afterAll } from 'vitest'
import { virtualFunctionsSuite } from '../../system/virtual-functions-suite.ts'
import { startDaemon } from '../../system/world.ts'
import { physicalFunction } from './physical-function.ts'

const ENABLE = '/sys/module/vfio_pci/parameters/enable_sriov'

afterAll(() => writeFileSync(ENABLE, 'N'))

virtualFunctionsSuite('linux', async () => {
  const pf = physicalFunction()
  writeFileSync(ENABLE, 'Y')
  return { daemon: await startDaemon(), pf }
})
