/** The physical function of the machine, made fit for what these suites do with it. */

import { existsSync, readdirSync, writeFileSync } from 'node:fs'

const PCI = '/sys/bus/pci/devices'

export function physicalFunction(): string {
  const name = readdirSync(PCI).find((each) => existsSync(`${PCI}/${each}/sriov_totalvfs`))
  if (name === undefined) throw new Error('the machine has no physical function')
  // The nvme of QEMU 7.2 loses its virtual functions for good when it is reset, which opening it does.
  writeFileSync(`${PCI}/${name}/reset_method`, '\n')
  return name
}
