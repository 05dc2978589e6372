// Which test file needs which machine. The folder says it, so that adding a file is all there is
// to do; everything that asks for nothing special shares one boot.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const special = [
  // iommufd offers its mock domain, the only one here that tracks dirty pages, without an IOMMU.
  { name: 'mock', folder: 'test/kernel/mock/', iommu: 'none', init: 'job' },
  // The unit, Type=notify and the fd store.
  { name: 'systemd', folder: 'test/kernel/systemd/', iommu: 'intel', init: 'systemd' },
  // A host whose /dev/vfio/vfio is iommufd's.
  {
    name: 'compat',
    folder: 'test/kernel/compat/',
    iommu: 'intel',
    init: 'job',
    vfioContainer: 'iommufd',
  },
  // A device with virtual functions, which would be one more group for all the others.
  {
    name: 'sriov',
    folder: 'test/kernel/sriov/',
    iommu: 'intel',
    init: 'job',
    devices: ['sriov'],
  },
  // Cards that cannot be reset by themselves, on a bus that can.
  {
    name: 'bus',
    folder: 'test/kernel/bus/',
    iommu: 'intel',
    init: 'job',
    devices: ['bus'],
  },
]
const common = { name: 'common', iommu: 'intel', init: 'job' }

function testFiles(checkout) {
  return ['test/kernel', 'test/contract', 'test/system'].flatMap((folder) => {
    const path = join(checkout, folder)
    const found = existsSync(path) ? readdirSync(path, { recursive: true }) : []
    return found.filter((file) => file.endsWith('.test.ts')).map((file) => `${folder}/${file}`)
  })
}

/** Suites of the daemon that run over modes (test/modes.ts) have the compat machine besides. */
const runsOverModes = (checkout, file) =>
  file.startsWith('test/system/') &&
  readFileSync(join(checkout, file), 'utf8').includes('describeModes(')

/** The machines to boot for the files that match any filter, each with its `files`. */
export function suites(checkout, filters) {
  const wanted = testFiles(checkout)
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
    .sort()
  const machineOf = (file) => special.find(({ folder }) => file.startsWith(folder)) ?? common
  const has = (machine, file) =>
    machineOf(file) === machine || (machine.name === 'compat' && runsOverModes(checkout, file))
  return [common, ...special]
    .map((machine) => ({ ...machine, files: wanted.filter((file) => has(machine, file)) }))
    .filter(({ files }) => files.length > 0)
}
