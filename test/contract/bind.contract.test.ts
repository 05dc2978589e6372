/** sysfs: moving PCI functions between drivers, and making mediated devices. */

import { randomUUID } from 'node:crypto'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD } from '../../src/abi/device.ts'
import { type Said, said } from './answers.ts'
import { describeContract } from './backends.ts'
import { s32, setIrqs } from './calls.ts'

const PCI = '/sys/bus/pci'
const VFIO_PCI = `${PCI}/drivers/vfio-pci`
const MTTY = '/sys/class/mdev_bus/mtty'
const REQ = 4

describeContract('binding', (machine) => {
  const { kernel } = machine
  let edu = ''
  let device = ''

  beforeAll(async () => {
    const edus = await machine.edus()
    edu = edus[0]
    device = `${PCI}/devices/${edu}`
    await machine.unbind(edus[0])
    await machine.unbind(edus[1])
  })

  afterEach(async () => {
    await machine.cleanUp()
    if ((await machine.driverOf(edu)) === 'vfio-pci') await write(`${VFIO_PCI}/unbind`, edu)
    await write(`${device}/driver_override`, '\n')
  })

  const write = async (path: string, text: string): Promise<Said> =>
    said(await kernel.writeFile(path, text))

  const override = (driver: string): Promise<Said> => write(`${device}/driver_override`, driver)
  const probe = (): Promise<Said> => write(`${PCI}/drivers_probe`, edu)
  const path = async (): Promise<string> => `/dev/vfio/${await machine.groupOf(edu)}`

  describe('driver_override', () => {
    test('says (null) until it is set, and again once it is cleared', async () => {
      expect(await machine.text(`${device}/driver_override`)).toBe('(null)')

      expect(await override('vfio-pci')).toBe(8)
      expect(await machine.text(`${device}/driver_override`)).toBe('vfio-pci')

      expect(await override('\n')).toBe(1)
      expect(await machine.text(`${device}/driver_override`)).toBe('(null)')
    })

    test('refuses what fills a page: EINVAL', async () => {
      expect(await override('x'.repeat(4095))).toBe('EINVAL')
    })

    test('takes a driver that is not loaded, and then nothing binds', async () => {
      await override('nosuch')

      expect(await probe()).toBe(edu.length)

      expect(await machine.driverOf(edu)).toBeUndefined()
    })
  })

  describe('drivers_probe', () => {
    test('refuses a function that is not there: ENODEV', async () => {
      expect(await write(`${PCI}/drivers_probe`, '0000:00:1e.7')).toBe('ENODEV')
      expect(await write(`${PCI}/drivers_probe`, 'nonsense')).toBe('ENODEV')
    })

    test('does nothing where no driver knows the function', async () => {
      expect(await probe()).toBe(edu.length)

      expect(await machine.driverOf(edu)).toBeUndefined()
    })

    test('binds the driver that the override names, and makes the node of the group', async () => {
      await override('vfio-pci')

      expect(await probe()).toBe(edu.length)

      expect(await machine.driverOf(edu)).toBe('vfio-pci')
      expect(await machine.names('/dev/vfio')).toContain(`${await machine.groupOf(edu)}`)
      expect(await machine.names(VFIO_PCI)).toContain(edu)
      const [node] = await machine.names(`${device}/vfio-dev`)
      expect(node).toMatch(/^vfio\d+$/)
    })

    test('leaves a function with a driver alone', async () => {
      await override('vfio-pci')
      await probe()

      expect(await probe()).toBe(edu.length)

      expect(await machine.driverOf(edu)).toBe('vfio-pci')
    })

    test('accepts a newline behind the address', async () => {
      await override('vfio-pci\n')

      await write(`${PCI}/drivers_probe`, `${edu}\n`)

      expect(await machine.text(`${device}/driver_override`)).toBe('vfio-pci')
    })
  })

  describe('bind', () => {
    test('refuses a function that the driver does not know: ENODEV', async () => {
      expect(await write(`${VFIO_PCI}/bind`, edu)).toBe('ENODEV')
    })

    test('refuses a function that is not there: ENODEV', async () => {
      expect(await write(`${VFIO_PCI}/bind`, '0000:00:1e.7')).toBe('ENODEV')
    })

    test('binds a function whose override names the driver', async () => {
      await override('vfio-pci')

      expect(await write(`${VFIO_PCI}/bind`, edu)).toBe(edu.length)

      expect(await machine.driverOf(edu)).toBe('vfio-pci')
    })

    test('refuses a function that has a driver: EBUSY', async () => {
      await override('vfio-pci')
      await probe()

      expect(await write(`${VFIO_PCI}/bind`, edu)).toBe('EBUSY')
    })

    test('of vfio-pci refuses a bridge: EINVAL', async () => {
      const [bridge] = await machine.functions(0x1b36, 0x000c)
      const at = `${PCI}/devices/${bridge}`
      await write(`${at}/driver/unbind`, bridge as string)
      await write(`${at}/driver_override`, 'vfio-pci')

      expect(await write(`${VFIO_PCI}/bind`, bridge as string)).toBe('EINVAL')

      await write(`${at}/driver_override`, '\n')
      await write(`${PCI}/drivers_probe`, bridge as string)
      expect(await machine.driverOf(bridge as string)).toBe('pcieport')
    })

    test('can only be written: EACCES', async () => {
      expect(said((await kernel.readFile(`${VFIO_PCI}/bind`)) as number)).toBe('EACCES')
    })
  })

  describe('unbind', () => {
    test('refuses a function that the driver does not have: ENODEV', async () => {
      expect(await write(`${VFIO_PCI}/unbind`, edu)).toBe('ENODEV')
      expect(await write(`${VFIO_PCI}/unbind`, '0000:00:1e.7')).toBe('ENODEV')
    })

    test('takes the node of the group away with its last device', async () => {
      await override('vfio-pci')
      await probe()

      expect(await write(`${VFIO_PCI}/unbind`, edu)).toBe(edu.length)

      expect(await machine.driverOf(edu)).toBeUndefined()
      expect(said(await kernel.open(await path(), 2))).toBe('ENOENT')
      expect(said((await kernel.readDir(`${device}/vfio-dev`)) as number)).toBe('ENOENT')
    })

    test('waits while the device is open, and asks for it', async () => {
      await override('vfio-pci')
      await probe()
      const { device: open } = await machine.opened(edu)
      const eventfd = machine.eventfd()
      const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
      await setIrqs(kernel, open, { flags, index: REQ, count: 1, data: s32(eventfd) })
      let isDone = false

      const unbound = write(`${VFIO_PCI}/unbind`, edu).then((answer) => {
        isDone = true
        return answer
      })
      await machine.signals(eventfd)
      expect(isDone).toBe(false)

      await machine.close(open)
      expect(await unbound).toBe(edu.length)
    })
  })

  describe('new_id', () => {
    let other = ''

    beforeAll(async () => {
      other = (await machine.functions(0x1234, 0x11e8)).find((name) => name !== edu) ?? ''
    })

    afterEach(async () => {
      await write(`${VFIO_PCI}/remove_id`, '1234 11e8')
      if ((await machine.driverOf(other)) === 'vfio-pci') await write(`${VFIO_PCI}/unbind`, other)
    })

    test('gives every function with the id and without a driver to the driver', async () => {
      expect(await write(`${VFIO_PCI}/new_id`, '1234 11e8')).toBe(9)

      expect(await machine.driverOf(edu)).toBe('vfio-pci')
      expect(await machine.driverOf(other)).toBe('vfio-pci')
    })

    test('gives an unbound function back at the next probe', async () => {
      await write(`${VFIO_PCI}/new_id`, '0x1234 0x11e8\n')
      await write(`${VFIO_PCI}/unbind`, edu)
      expect(await machine.driverOf(edu)).toBeUndefined()

      await probe()

      expect(await machine.driverOf(edu)).toBe('vfio-pci')
    })

    test('respects an override, and the ids of a subsystem', async () => {
      await override('nosuch')
      await write(`${VFIO_PCI}/new_id`, '1234 11e8 1af4 1101')
      expect(await machine.driverOf(other)).toBeUndefined()
      await write(`${VFIO_PCI}/remove_id`, '1234 11e8 1af4 1101')

      await write(`${VFIO_PCI}/new_id`, '1234 11e8 1af4 1100')

      expect(await machine.driverOf(other)).toBe('vfio-pci')
      expect(await machine.driverOf(edu)).toBeUndefined()
    })

    test('refuses an id that the driver was given: EEXIST, and less than two numbers: EINVAL', async () => {
      await write(`${VFIO_PCI}/new_id`, '1234 11e8')

      expect(await write(`${VFIO_PCI}/new_id`, '1234 11e8')).toBe('EEXIST')
      expect(await write(`${VFIO_PCI}/new_id`, '1234')).toBe('EINVAL')
      expect(await write(`${VFIO_PCI}/new_id`, 'id 1234')).toBe('EINVAL')
    })
  })

  describe('remove_id', () => {
    test('takes the id back; a function that the driver has stays with it', async () => {
      await write(`${VFIO_PCI}/new_id`, '1234 11e8 1af4 1100')

      expect(await write(`${VFIO_PCI}/remove_id`, '1234 11e8')).toBe(9)

      expect(await machine.driverOf(edu)).toBe('vfio-pci')
      for (const name of await machine.functions(0x1234, 0x11e8))
        await write(`${VFIO_PCI}/unbind`, name)
      await probe()
      expect(await machine.driverOf(edu)).toBeUndefined()
    })

    test('refuses an id that the driver was not given: ENODEV', async () => {
      expect(await write(`${VFIO_PCI}/remove_id`, '1234 11e9')).toBe('ENODEV')
      expect(await write(`${VFIO_PCI}/remove_id`, '')).toBe(0)
    })
  })

  describe('a kernel driver', () => {
    test('cannot take a function of a group that a user has: EBUSY', async () => {
      const cards = (await machine.functions(0x8086, 0x10d3)).filter(
        (address) => !address.startsWith('0000:00'),
      )
      const [first, second] = cards as [string, string]
      await machine.bind(first)
      await machine.bind(second)
      await machine.mappable([first])
      const at = `${PCI}/devices/${second}`
      await write(`${VFIO_PCI}/unbind`, second)
      await write(`${at}/driver_override`, '\n')

      expect(await write(`${PCI}/drivers/e1000e/bind`, second)).toBe('EBUSY')
      expect(await write(`${PCI}/drivers_probe`, second)).toBe('EINVAL')

      await machine.cleanUp()
      await machine.unbind(second)
      await machine.unbind(first)
    })
  })

  describe('what there is not', () => {
    test.each([
      [`${PCI}/devices/0000:00:1e.7/vendor`, 'ENOENT'],
      ['/sys/nosuch', 'ENOENT'],
      ['/sys/bus/pci', 'EISDIR'],
    ])('reading %s: %s', async (file, errno) => {
      expect(said((await kernel.readFile(file)) as number)).toBe(errno)
    })

    test('a file is not a directory: ENOTDIR', async () => {
      expect(said((await kernel.readDir(`${device}/vendor`)) as number)).toBe('ENOTDIR')
      expect(said((await kernel.readFile(`${device}/vendor/x`)) as number)).toBe('ENOTDIR')
    })

    test('a file is not a link: EINVAL', async () => {
      expect(said((await kernel.readLink(`${device}/vendor`)) as number)).toBe('EINVAL')
    })

    test('a file that cannot be written: EACCES', async () => {
      expect(await write(`${device}/vendor`, '0x1')).toBe('EACCES')
    })
  })

  describe('a group', () => {
    test('lists its functions, its type and what is reserved', async () => {
      const at = `/sys/kernel/iommu_groups/${await machine.groupOf(edu)}`

      expect(await machine.names(`${at}/devices`)).toEqual([edu])
      expect(await machine.text(`${at}/type`)).toBe('DMA')
      expect(await machine.text(`${at}/reserved_regions`)).toBe(
        '0x00000000fee00000 0x00000000feefffff msi',
      )
    })

    test('of the chipset has a region that may be mapped over', async () => {
      const { spoiler } = await machine.spoiledGroup()
      const at = `/sys/kernel/iommu_groups/${await machine.groupOf(spoiler)}`

      expect((await machine.text(`${at}/reserved_regions`)).split('\n')).toEqual([
        '0x0000000000000000 0x0000000000ffffff direct-relaxable',
        '0x00000000fee00000 0x00000000feefffff msi',
      ])
    })
  })
})

describeContract('making an mdev', (machine) => {
  const { kernel } = machine
  const types = `${MTTY}/mdev_supported_types`

  const create = async (type: string, uuid: string): Promise<Said> =>
    said(await kernel.writeFile(`${types}/${type}/create`, uuid))

  const available = async (): Promise<number[]> => [
    Number(await machine.text(`${types}/mtty-1/available_instances`)),
    Number(await machine.text(`${types}/mtty-2/available_instances`)),
  ]

  test('the parent tells its types', async () => {
    expect(await machine.names(types)).toEqual(['mtty-1', 'mtty-2'])
    expect(await machine.text(`${types}/mtty-1/name`)).toBe('Single port serial')
    expect(await machine.text(`${types}/mtty-2/name`)).toBe('Dual port serial')
    expect(await machine.text(`${types}/mtty-2/device_api`)).toBe('vfio-pci')
  })

  test('takes from the pool that the types share, and gives back', async () => {
    expect(await available()).toEqual([24, 12])
    await machine.mtty('mtty-1')
    const uuid = await machine.mtty('mtty-2')
    expect(await available()).toEqual([21, 10])

    expect(await machine.removeMdev(uuid)).toBe(1)

    expect(await available()).toEqual([23, 11])
  })

  test('refuses when the pool is empty: ENOSPC', async () => {
    for (let made = 0; made < 12; made++) await machine.mtty('mtty-2')

    expect(await create('mtty-1', randomUUID())).toBe('ENOSPC')
    expect(await create('mtty-2', randomUUID())).toBe('ENOSPC')
  })

  test.each([
    ['no UUID', 'zzz'],
    ['a UUID without dashes', '83b8f4f2509f382f3c1ee6bfe0fa1001'],
    ['a UUID that is cut', '83b8f4f2-509f-382f-3c1e-e6bfe0fa100'],
  ])('refuses %s: EINVAL', async (_what, text) => {
    expect(await create('mtty-1', text)).toBe('EINVAL')
  })

  test('refuses a UUID that is taken, of whichever type: EEXIST', async () => {
    const uuid = await machine.mtty('mtty-1')

    expect(await create('mtty-2', uuid)).toBe('EEXIST')
  })

  test('names the device in small letters', async () => {
    const uuid = randomUUID()

    expect(await create('mtty-1', uuid.toUpperCase())).toBe(36)

    expect(await machine.names('/sys/bus/mdev/devices')).toContain(uuid)
    await machine.removeMdev(uuid)
  })

  test('makes a separate group, with a node, and a number among vfio devices', async () => {
    const uuid = await machine.mtty('mtty-2')
    const group = await machine.groupOf(uuid)
    const at = `/sys/bus/mdev/devices/${uuid}`

    expect(await machine.names(`/sys/kernel/iommu_groups/${group}/devices`)).toEqual([uuid])
    expect(await machine.text(`/sys/kernel/iommu_groups/${group}/type`)).toBe('unknown')
    expect(await machine.text(`/sys/kernel/iommu_groups/${group}/reserved_regions`)).toBe('')
    expect(await machine.names('/dev/vfio')).toContain(`${group}`)
    expect(await machine.linked(`${at}/mdev_type`)).toBe('mtty-2')
    expect(await machine.linked(`${at}/driver`)).toBe('mtty')
    expect((await machine.names(`${at}/vfio-dev`))[0]).toMatch(/^vfio\d+$/)
  })

  test('0 does not remove it, and a text that is not a number is refused: EINVAL', async () => {
    const uuid = await machine.mtty('mtty-1')
    const remove = `/sys/bus/mdev/devices/${uuid}/remove`

    expect(said(await kernel.writeFile(remove, '0'))).toBe(1)
    expect(said(await kernel.writeFile(remove, 'x'))).toBe('EINVAL')

    expect(await machine.names('/sys/bus/mdev/devices')).toContain(uuid)
  })

  test('removing it waits until no process has it open', async () => {
    const uuid = await machine.mtty('mtty-1')
    const { device } = await machine.opened(uuid)
    let isDone = false

    const removed = machine.removeMdev(uuid).then((answer) => {
      isDone = true
      return answer
    })
    await machine.until(() => true)
    expect(isDone).toBe(false)

    await machine.close(device)
    expect(await removed).toBe(1)
    expect(await machine.names('/sys/bus/mdev/devices')).not.toContain(uuid)
  })
})
