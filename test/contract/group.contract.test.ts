/** vfio.h: VFIO_GROUP_* and /dev/vfio/N. */

import { beforeAll, describe, expect, test } from 'vitest'
import { VFIO_TYPE1v2_IOMMU } from '../../src/abi/container.ts'
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
} from '../../src/abi/group.ts'
import { PCI_COMMAND, PCI_COMMAND_MASTER } from '../../src/abi/pci.ts'
import { said } from './answers.ts'
import { describeContract, unless } from './backends.ts'
import { getDeviceFd, getStatus, mapDma, setContainer, setIommu } from './calls.ts'

const CONFIG = 7n << 40n

describeContract('a group', (machine) => {
  const { kernel } = machine
  let edu = ''
  let other = ''

  beforeAll(async () => {
    ;[edu, other] = await machine.edus()
  })

  /** Of an iommufd as a container iommufd-compat.contract.test.ts has the rule. */
  const inType1 = (whyNot: string) => unless(machine.isCompat, whyNot)

  const unset = (group: number): Promise<number> =>
    kernel.ioctl(group, VFIO_GROUP_UNSET_CONTAINER.number, undefined)

  describe('/dev/vfio/N', () => {
    test('refuses to be opened twice: EBUSY', async () => {
      await machine.group(edu)

      const second = await machine.open(`/dev/vfio/${await machine.groupOf(edu)}`)

      expect(said(second)).toBe('EBUSY')
    })

    test('can be opened again once it is closed', async () => {
      await machine.close(await machine.group(edu))

      expect(await machine.group(edu)).toBeGreaterThanOrEqual(0)
    })

    test('is not there for a group without a device of a vfio driver: ENOENT', async () => {
      expect(said(await machine.open('/dev/vfio/4095'))).toBe('ENOENT')
    })

    inType1('a device keeps the iommufd, and the group can be opened')(
      'stays busy while a device is open, its own fd being closed: EBUSY',
      async () => {
        const { group, device } = await machine.opened(edu)
        await machine.close(group)

        const path = `/dev/vfio/${await machine.groupOf(edu)}`
        expect(said(await machine.open(path))).toBe('EBUSY')

        await machine.close(device)
        expect(await machine.open(path)).toBeGreaterThanOrEqual(0)
      },
    )

    test('cannot be read or written: EINVAL', async () => {
      const group = await machine.group(edu)

      expect(said(await kernel.read(group, new Uint8Array(4)))).toBe('EINVAL')
      expect(said(await kernel.write(group, new Uint8Array(4)))).toBe('EINVAL')
    })

    test('refuses a request it does not know: ENOTTY', async () => {
      const group = await machine.group(edu)

      expect(said(await kernel.ioctl(group, 0x3bff, undefined))).toBe('ENOTTY')
      expect(said(await kernel.ioctl(group, 0x3b64, undefined))).toBe('ENOTTY')
    })
  })

  describe('VFIO_GROUP_GET_STATUS', () => {
    test('is viable without a container, and says so with one', async () => {
      const group = await machine.group(edu)
      expect(await getStatus(kernel, group)).toEqual({ answer: 0, flags: VFIO_GROUP_FLAGS_VIABLE })

      await setContainer(kernel, group, await machine.container())

      const flags = VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET
      expect(await getStatus(kernel, group)).toEqual({ answer: 0, flags })
    })

    test('is not viable while a kernel driver has a device of the group', async () => {
      const { free, spoiler } = await machine.spoiledGroup()
      await machine.bind(free)
      const group = await machine.group(free)

      expect(await getStatus(kernel, group)).toEqual({ answer: 0, flags: 0 })

      await kernel.writeFile(`/sys/bus/pci/devices/${spoiler}/driver/unbind`, spoiler)
      const others = await machine.names(
        `/sys/kernel/iommu_groups/${await machine.groupOf(free)}/devices`,
      )
      const drivers = await Promise.all(others.map((name) => machine.driverOf(name)))
      const isFree = drivers.every((driver) => driver === undefined || driver === 'vfio-pci')
      expect((await getStatus(kernel, group)).flags).toBe(isFree ? VFIO_GROUP_FLAGS_VIABLE : 0)

      await machine.close(group)
      await kernel.writeFile('/sys/bus/pci/drivers_probe', spoiler)
      await machine.unbind(free)
    })

    test('refuses an argsz below 8: EINVAL', async () => {
      const group = await machine.group(edu)

      expect(said((await getStatus(kernel, group, 7)).answer)).toBe('EINVAL')
    })

    test('refuses a pointer that leads nowhere: EFAULT', async () => {
      const group = await machine.group(edu)

      expect(said(await kernel.ioctl(group, VFIO_GROUP_GET_STATUS.number, undefined))).toBe(
        'EFAULT',
      )
    })
  })

  describe('VFIO_GROUP_SET_CONTAINER', () => {
    test('refuses an fd that is not open: EBADF', async () => {
      const group = await machine.group(edu)

      expect(said(await setContainer(kernel, group, -1))).toBe('EBADF')
      expect(said(await setContainer(kernel, group, 100_000))).toBe('EBADF')
    })

    test('refuses a file that is not a container: EBADFD', async () => {
      const group = await machine.group(edu)

      expect(said(await setContainer(kernel, group, machine.eventfd()))).toBe('EBADFD')
      expect(said(await setContainer(kernel, group, group))).toBe('EBADFD')
    })

    test('refuses a group that has a container, the same or another: EINVAL', async () => {
      const group = await machine.group(edu)
      const container = await machine.container()
      expect(await setContainer(kernel, group, container)).toBe(0)

      expect(said(await setContainer(kernel, group, container))).toBe('EINVAL')
      expect(said(await setContainer(kernel, group, await machine.container()))).toBe('EINVAL')
    })

    test('looks at the fd before the container the group has: EBADF', async () => {
      const group = await machine.group(edu)
      await setContainer(kernel, group, await machine.container())

      expect(said(await setContainer(kernel, group, -1))).toBe('EBADF')
    })

    inType1('an iommufd refuses its devices')(
      'refuses a group that a kernel driver spoils: EPERM',
      async () => {
        const { free } = await machine.spoiledGroup()
        await machine.bind(free)
        const group = await machine.group(free)

        expect(said(await setContainer(kernel, group, await machine.container()))).toBe('EPERM')

        await machine.close(group)
        await machine.unbind(free)
      },
    )

    test('takes several groups into one container, before and after SET_IOMMU', async () => {
      const { container } = await machine.attached([edu])

      expect(await setContainer(kernel, await machine.group(other), container)).toBe(0)
    })

    test('refuses a pointer that leads nowhere: EFAULT', async () => {
      const group = await machine.group(edu)

      const answer = await kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER.number, undefined)
      expect(said(answer)).toBe('EFAULT')
    })
  })

  describe('VFIO_GROUP_UNSET_CONTAINER', () => {
    test('refuses a group without a container: EINVAL', async () => {
      expect(said(await unset(await machine.group(edu)))).toBe('EINVAL')
    })

    inType1('an iommufd lets the group go')(
      'refuses while a device of the group is open: EBUSY',
      async () => {
        const { group, device } = await machine.opened(edu)

        expect(said(await unset(group))).toBe('EBUSY')

        await machine.close(device)
        expect(await unset(group)).toBe(0)
        expect((await getStatus(kernel, group)).flags).toBe(VFIO_GROUP_FLAGS_VIABLE)
      },
    )
  })

  describe('VFIO_GROUP_GET_DEVICE_FD', () => {
    test('refuses a group without a container: EINVAL', async () => {
      expect(said(await getDeviceFd(kernel, await machine.group(edu), edu))).toBe('EINVAL')
    })

    inType1('an iommufd needs no SET_IOMMU')(
      'refuses a container without SET_IOMMU: EINVAL',
      async () => {
        const group = await machine.group(edu)
        await setContainer(kernel, group, await machine.container())

        expect(said(await getDeviceFd(kernel, group, edu))).toBe('EINVAL')
      },
    )

    test('refuses a name that is not in the group, even without a container: ENODEV', async () => {
      const group = await machine.group(edu)
      expect(said(await getDeviceFd(kernel, group, other))).toBe('ENODEV')
      expect(said(await getDeviceFd(kernel, group, ''))).toBe('ENODEV')

      const container = await machine.container()
      await setContainer(kernel, group, container)
      await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU)
      expect(said(await getDeviceFd(kernel, group, other))).toBe('ENODEV')
    })

    test('refuses an option behind the name that it does not know: EINVAL', async () => {
      const { group } = await machine.attached([edu])

      expect(said(await getDeviceFd(kernel, group, `${edu} colour=red`))).toBe('EINVAL')
      expect(said(await getDeviceFd(kernel, group, `${edu}x`))).toBe('ENODEV')
    })

    test('opens the same device again: a new fd, the same registers', async () => {
      const { group, device } = await machine.opened(edu)
      const again = await machine.deviceOf(group, edu)
      expect(again).not.toBe(device)

      const word = new Uint8Array([PCI_COMMAND_MASTER | 2, 0])
      await kernel.pwrite(device, word, CONFIG + BigInt(PCI_COMMAND))

      const read = new Uint8Array(2)
      await kernel.pread(again, read, CONFIG + BigInt(PCI_COMMAND))
      expect((read[0] as number) & PCI_COMMAND_MASTER).toBe(PCI_COMMAND_MASTER)
    })

    test('refuses a pointer that leads nowhere: EFAULT', async () => {
      const { group } = await machine.attached([edu])

      const answer = await kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD.number, undefined)
      expect(said(answer)).toBe('EFAULT')
    })
  })

  describe('references', () => {
    inType1('mappings stay with the iommufd')(
      'the last group to leave takes the mappings and the backend of its container',
      async () => {
        const { container, group } = await machine.attached([edu])
        const { segment } = await machine.memory(0x1000)
        const map = { vaddr: segment.address, iova: 0x10_0000n, size: 0x1000n }
        expect(await mapDma(kernel, container, map)).toBe(0)

        await machine.close(group)

        expect(said(await mapDma(kernel, container, map))).toBe('EINVAL')
        const again = await machine.group(edu)
        expect(await setContainer(kernel, again, container)).toBe(0)
        expect(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU)).toBe(0)
        expect(await mapDma(kernel, container, map)).toBe(0)
      },
    )

    test('a container lives as long as a group is in it, its own fd being closed', async () => {
      const { container, group } = await machine.attached([edu])

      await machine.close(container)

      expect(await getDeviceFd(kernel, group, edu).then((fd) => machine.track(fd))).toBeGreaterThan(
        0,
      )
    })

    test('a group whose last device leaves vfio-pci is an empty shell: ENODEV', async () => {
      const { container, group } = await machine.attached([edu])

      await machine.unbind(edu)

      expect(said((await getStatus(kernel, group)).answer)).toBe('ENODEV')
      // An iommufd stays, with its ioas.
      const { isCompat } = machine
      const set = said(await setContainer(kernel, group, container))
      expect(set).toBe(isCompat ? 'EINVAL' : 'ENODEV')
      expect(said(await unset(group))).toBe(isCompat ? 0 : 'EINVAL')
      const mapped = said(await mapDma(kernel, container, { size: 0x1000n }))
      expect(mapped).toBe(isCompat ? 0 : 'EINVAL')
      await machine.close(group)
      await machine.bind(edu)
    })
  })
})
