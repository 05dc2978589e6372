// Which test file needs which machine. The folder says it, so that adding a file is all there is
// to do; everything that asks for nothing special shares one boot.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const special = [
  // iommufd offers its mock domain, the only one here that tracks dirty pages, without an IOMMU.
  { name: 'mock', folder: 'test/kernel/mock/', iommu: 'none', init: 'job' },
  // The unit, Type=notify and the fd store.
  { name: 'systemd', folder: 'test/kernel/systemd/', iommu: 'intel', init: 'systemd' },
]
const common = { name: 'common', iommu: 'intel', init: 'job' }

function testFiles(checkout) {
  return ['test/kernel', 'test/contract', 'test/system'].flatMap((folder) => {
    const path = join(checkout, folder)
    const found = existsSync(path) ? readdirSync(path, { recursive: true }) : []
    return found.filter((file) => file.endsWith('.test.ts')).map((file) => `${folder}/${file}`)
  })
}

/** The machines to boot for the files that match any filter, each with its `files`. */
export function suites(checkout, filters) {
  const wanted = testFiles(checkout)
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
    .sort()
  const machineOf = (file) => special.find(({ folder }) => file.startsWith(folder)) ?? common
  return [common, ...special]
    .map((machine) => ({ ...machine, files: wanted.filter((file) => machineOf(file) === machine) }))
    .filter(({ files }) => files.length > 0)
}
