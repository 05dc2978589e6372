/** sysfs: what a function, a mediated device and their drivers tell about themselves. */

import { beforeAll, describe, expect, test } from 'vitest'
import { said } from './answers.ts'
import { describeType1 } from './backends.ts'

const PCI = '/sys/bus/pci'
const MDEV = '/sys/bus/mdev'
const MTTY = '/sys/class/mdev_bus/mtty/mdev_supported_types'
const MEMORY = 0x200n
const MIB = 0x10_0000n

describeType1('it opens no container')('sysfs', (machine) => {
  const { kernel } = machine
  let edu = ''
  let device = ''

  beforeAll(async () => {
    ;[edu] = await machine.edus()
    device = `${PCI}/devices/${edu}`
  })

  /** The answer to reading a file of the driver, which is -errno for those that are for writing. */
  const driverFile = async (name: string): Promise<number> => {
    const bytes = await kernel.readFile(`${PCI}/drivers/vfio-pci/${name}`)
    return typeof bytes === 'number' ? bytes : bytes.length
  }

  describe('of a PCI function', () => {
    test('tells its ids and its class', async () => {
      const names = ['vendor', 'device', 'subsystem_vendor', 'subsystem_device', 'class']
      const told = await Promise.all(names.map((name) => machine.text(`${device}/${name}`)))

      expect(told).toEqual(['0x1234', '0x11e8', '0x1af4', '0x1100', '0x00ff00'])
      expect(await machine.text(`${device}/revision`)).toBe('0x10')
    })

    test('tells where its BARs are: 1 MiB of memory in the first', async () => {
      const rows = (await machine.text(`${device}/resource`)).split('\n')
      const [start = 0n, last = 0n, flags = 0n] = (rows[0] ?? '').split(' ').map(BigInt)

      expect(rows).toHaveLength(13)
      expect(last - start + 1n).toBe(MIB)
      expect(flags & MEMORY).toBe(MEMORY)
      expect(rows[1]).toMatch(/^0x0{16} 0x0{16} 0x0{16}$/)
    })

    test('has its bus, its driver and its vfio device', async () => {
      const [vfio = ''] = await machine.names(`${device}/vfio-dev`)

      expect(await machine.linked(`${device}/subsystem`)).toBe('pci')
      expect(await machine.linked(`${device}/vfio-dev/${vfio}/device`)).toBe(edu)
      expect(await machine.text(`${device}/vfio-dev/${vfio}/dev`)).toMatch(/^\d+:\d+$/)
      expect(await machine.names(`${PCI}/drivers/vfio-pci`)).toEqual(
        expect.arrayContaining([edu, 'bind', 'unbind', 'uevent']),
      )
      expect(said(await driverFile('uevent'))).toBe('EACCES')
      expect(await machine.names(`${device}/..`)).toContain(edu)
    })

    test('is probed by drivers on its own, and interrupts are remapped', async () => {
      const type1 = '/sys/module/vfio_iommu_type1/parameters'

      expect(await machine.text(`${PCI}/drivers_autoprobe`)).toBe('1')
      expect(await machine.text(`${type1}/allow_unsafe_interrupts`)).toBe('N')
    })
  })

  describe('of groups', () => {
    test('lists those that have a node, by number', async () => {
      const group = `${await machine.groupOf(edu)}`

      expect(await machine.names('/sys/class/vfio')).toContain(group)
      expect(await machine.text(`/sys/class/vfio/${group}/dev`)).toMatch(/^\d+:\d+$/)
    })

    test('names the group of a mediated device as one without an IOMMU, and no other', async () => {
      const uuid = await machine.mtty('mtty-2')
      const groups = '/sys/kernel/iommu_groups'

      expect(await machine.text(`${groups}/${await machine.groupOf(uuid)}/name`)).toBe(
        'vfio-noiommu',
      )
      expect(await machine.names(`${groups}/${await machine.groupOf(edu)}`)).not.toContain('name')
    })

    test('tells the release of the kernel beside', async () => {
      expect(await machine.text('/proc/sys/kernel/osrelease')).toMatch(/^\d+\.\d+/)
    })
  })

  describe.each(['vfio_iommu_type1', 'iommufd'])('allow_unsafe_interrupts of %s', (module) => {
    const file = `/sys/module/${module}/parameters/allow_unsafe_interrupts`

    test.each([
      ['1', 'Y'],
      ['no\n', 'N'],
      ['On', 'Y'],
      ['off', 'N'],
    ])('becomes what %j says: %s', async (text, shown) => {
      expect(await kernel.writeFile(file, text)).toBe(text.length)

      expect(await machine.text(file)).toBe(shown)
    })

    test('refuses another word: EINVAL', async () => {
      expect(said(await kernel.writeFile(file, 'maybe'))).toBe('EINVAL')
    })
  })

  describe('of a mediated device', () => {
    test('has its bus, its driver and its type', async () => {
      const uuid = await machine.mtty('mtty-2')
      const driver = await machine.linked(`${MDEV}/devices/${uuid}/driver`)

      expect(await machine.linked(`${MDEV}/devices/${uuid}/subsystem`)).toBe('mdev')
      expect(await machine.names(`${MDEV}/drivers/${driver}`)).toContain(uuid)
      expect(await machine.names(`${MTTY}/mtty-2/devices`)).toEqual([uuid])
      expect(await machine.names(`${MTTY}/mtty-1/devices`)).toEqual([])
      expect(typeof (await kernel.readLink(`${MTTY}/mtty-2/devices/${uuid}`))).toBe('string')
    })
  })
})
