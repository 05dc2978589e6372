/**
 * No-IOMMU groups: what vfio makes of a function that no IOMMU is before. Run over the simulator, and over
 * a machine without an IOMMU (test/kernel/mock).
 */

import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  VFIO_NOIOMMU_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../src/abi/container.ts'
import { VFIO_GROUP_FLAGS_CONTAINER_SET, VFIO_GROUP_FLAGS_VIABLE } from '../../src/abi/group.ts'
import { must, said } from './answers.ts'
import {
  checkExtension,
  getDeviceFd,
  getInfo,
  getStatus,
  mapDma,
  setContainer,
  setIommu,
} from './calls.ts'
import type { Machine } from './machine.ts'

const PCI = '/sys/bus/pci'
const MODE = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode'

export const noIommuSuite = (title: string, machine: Machine): void => {
  const { kernel } = machine
  let name = ''

  const setMode = async (mode: 'Y' | 'N') =>
    must(await kernel.writeFile(MODE, mode), 'set enable_unsafe_noiommu_mode')
  const nodeOf = async () => `/dev/vfio/noiommu-${await machine.groupOf(name)}`
  const group = async () => must(await machine.open(await nodeOf()), 'open the group')
  const extension = async (container: number, id: number) =>
    said(await checkExtension(kernel, container, id))

  beforeEach(async () => {
    name = (await machine.functions(0x1234, 0x11e8))[0] ?? ''
    await setMode('Y')
    await machine.bind(name)
  })
  afterEach(async () => {
    await machine.cleanUp()
    await machine.restore()
  })
  afterAll(() => setMode('N'))

  describe(`${title}: a function that no IOMMU is before`, () => {
    test('has a group of vfio while vfio-pci has it, and a node that says so', async () => {
      const id = await machine.groupOf(name)
      const groups = '/sys/kernel/iommu_groups'
      expect(await machine.text(`${groups}/${id}/name`)).toBe('vfio-noiommu')
      expect(await machine.names(`${groups}/${id}/devices`)).toEqual([name])
      expect(await machine.names('/dev/vfio')).toContain(`noiommu-${id}`)
      expect(await machine.names('/dev/vfio')).not.toContain(`${id}`)
      expect(await machine.names('/sys/class/vfio')).toContain(`noiommu-${id}`)

      await machine.unbind(name)

      expect(await machine.linked(`${PCI}/devices/${name}/iommu_group`)).toBeUndefined()
      expect(await machine.names('/sys/kernel/iommu_groups')).not.toContain(`${id}`)
      await machine.bind(name)
    })

    test('is not taken unless enable_unsafe_noiommu_mode is set: EINVAL', async () => {
      await machine.unbind(name)
      await setMode('N')
      must(await kernel.writeFile(`${PCI}/devices/${name}/driver_override`, 'vfio-pci'), 'override')

      const bound = await kernel.writeFile(`${PCI}/drivers/vfio-pci/bind`, name)

      expect(said(bound)).toBe('EINVAL')
      expect(await machine.driverOf(name)).toBeUndefined()
      await setMode('Y')
      await machine.bind(name)
    })

    test('has no cdev', async () => {
      const [device = ''] = await machine.names(`${PCI}/devices/${name}/vfio-dev`)

      expect(await machine.names(`${PCI}/devices/${name}/vfio-dev/${device}`)).not.toContain('dev')
      expect(said(await kernel.open(`/dev/vfio/devices/${device}`, 2))).toBe('ENOENT')
    })
  })

  describe(`${title}: a container with a no-IOMMU group`, () => {
    test('knows VFIO_NOIOMMU_IOMMU before a group and with one, while the mode is set', async () => {
      const container = await machine.container()
      expect(await extension(container, VFIO_NOIOMMU_IOMMU)).toBe(1)
      must(await setContainer(kernel, await group(), container), 'set the container')
      expect(await extension(container, VFIO_NOIOMMU_IOMMU)).toBe(1)
      expect(await extension(container, VFIO_TYPE1_IOMMU)).toBe(0)

      await setMode('N')

      expect(await extension(container, VFIO_NOIOMMU_IOMMU)).toBe(0)
      expect(await extension(await machine.container(), VFIO_TYPE1_IOMMU)).toBe(1)
    })

    test('takes no type1 backend: ENODEV; and no other while it has one: EINVAL', async () => {
      const container = await machine.container()
      must(await setContainer(kernel, await group(), container), 'set the container')

      expect(said(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU))).toBe('ENODEV')
      expect(said(await setIommu(kernel, container, VFIO_NOIOMMU_IOMMU))).toBe(0)
      expect(said(await setIommu(kernel, container, VFIO_NOIOMMU_IOMMU))).toBe('EINVAL')
    })

    test('maps nothing and has no limits: ENOTTY', async () => {
      const container = await machine.container()
      must(await setContainer(kernel, await group(), container), 'set the container')
      must(await setIommu(kernel, container, VFIO_NOIOMMU_IOMMU), 'set the backend')
      const { segment } = await machine.memory(4096)
      const range = { iova: 0x10_0000n, vaddr: segment.address, size: 4096n }

      expect(said(await mapDma(kernel, container, range))).toBe('ENOTTY')
      expect(said((await getInfo(kernel, container)).answer)).toBe('ENOTTY')
    })

    test('opens the device once it has the backend: EINVAL before', async () => {
      const container = await machine.container()
      const fd = await group()
      must(await setContainer(kernel, fd, container), 'set the container')
      expect(said(await getDeviceFd(kernel, fd, name))).toBe('EINVAL')
      must(await setIommu(kernel, container, VFIO_NOIOMMU_IOMMU), 'set the backend')

      expect(machine.track(await getDeviceFd(kernel, fd, name))).toBeGreaterThan(0)
      expect((await getStatus(kernel, fd)).flags).toBe(
        VFIO_GROUP_FLAGS_CONTAINER_SET | VFIO_GROUP_FLAGS_VIABLE,
      )
    })

    test('does not mix with groups of another kind: EPERM', async () => {
      const mtty = await machine.mtty('mtty-2')
      const [plain, container] = [await machine.group(mtty), await machine.container()]
      const fd = await group()
      must(await setContainer(kernel, fd, container), 'set the container')

      expect(said(await setContainer(kernel, plain, container))).toBe('EPERM')

      const other = await machine.container()
      await machine.close(fd)
      must(await setContainer(kernel, plain, other), 'set the other container')
      expect(said(await setContainer(kernel, await group(), other))).toBe('EPERM')
    })

    test('is empty again when the group leaves, and takes others', async () => {
      const container = await machine.container()
      const fd = await group()
      must(await setContainer(kernel, fd, container), 'set the container')
      must(await setIommu(kernel, container, VFIO_NOIOMMU_IOMMU), 'set the backend')
      await machine.close(fd)
      const mtty = await machine.mtty('mtty-2')

      expect(await setContainer(kernel, await machine.group(mtty), container)).toBe(0)
      expect(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU)).toBe(0)
    })
  })
}
