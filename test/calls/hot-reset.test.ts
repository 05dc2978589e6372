/** The two requests of a hot reset, against kernels that answer what a test says. */

import { describe, expect, test } from 'vitest'
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
} from '../../src/abi/device.ts'
import { ERRNO } from '../../src/base/errno.ts'
import type { DeviceFd, GroupFd } from '../../src/base/units.ts'
import { hotReset, hotResetScope } from '../../src/kernel/hot-reset-calls.ts'
import type { Kernel } from '../../src/kernel/port.ts'

const DEVICE = 5 as DeviceFd

type Requests = Readonly<Record<number, (bytes: Uint8Array) => number>>

const answering = (requests: Requests): Kernel =>
  ({
    ioctl: async (_fd: number, request: number, bytes: Uint8Array) =>
      requests[request]?.(bytes) ?? -ERRNO.ENOTTY,
  }) as unknown as Kernel

/** As the kernel does: what there is where there is room for it, and else how many. */
const bus = (devices: readonly { segment: number; bus: number; devfn: number }[]) => {
  const asked: number[] = []
  const answer = (bytes: Uint8Array): number => {
    const { argsz } = vfio_pci_hot_reset_info.decode(bytes)
    asked.push(argsz)
    const { size } = vfio_pci_dependent_device
    vfio_pci_hot_reset_info.write(bytes, { count: devices.length })
    if (argsz < vfio_pci_hot_reset_info.size + devices.length * size) return -ERRNO.ENOSPC
    for (const [n, device] of devices.entries())
      bytes.set(
        vfio_pci_dependent_device.encode({ group_id: 9, ...device }),
        vfio_pci_hot_reset_info.size + n * size,
      )
    return 0
  }
  return { kernel: answering({ [VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number]: answer }), asked }
}

describe('what a hot reset would hit', () => {
  test('is answered as addresses', async () => {
    const { kernel } = bus([
      { segment: 0, bus: 1, devfn: 1 },
      { segment: 0x10, bus: 0xaf, devfn: 0xff },
    ])

    expect(await hotResetScope(kernel, DEVICE)).toEqual(['0000:01:00.1', '0010:af:1f.7'])
  })

  test('is asked for with more room where there is more than fits', async () => {
    const devices = Array.from({ length: 300 }, (_, devfn) => ({
      ...{ segment: 0, bus: devfn >> 8, devfn: devfn & 0xff },
    }))
    const { kernel, asked } = bus(devices)

    expect(await hotResetScope(kernel, DEVICE)).toHaveLength(300)
    expect(asked).toHaveLength(2)
  })

  test.each([
    ['UNSUPPORTED', ['no-bus-reset'], 0],
    ['UNSUPPORTED', ['no-bus-reset', 'device-gone'], -ERRNO.ENODEV],
  ])('is refused without a bridge as %s: %s', async (reason, causes, alive) => {
    const kernel = answering({
      [VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number]: () => -ERRNO.ENODEV,
      [VFIO_DEVICE_GET_INFO.number]: () => alive,
    })

    await expect(hotResetScope(kernel, DEVICE)).rejects.toMatchObject({
      reason,
      details: { causes, errno: 'ENODEV' },
    })
  })
})

describe('a hot reset', () => {
  test('shows the kernel every group', async () => {
    let seen: unknown
    const kernel = answering({
      [VFIO_DEVICE_PCI_HOT_RESET.number]: (bytes) => {
        const { argsz, flags, count } = vfio_pci_hot_reset.decode(bytes)
        const fds = [...new Int32Array(bytes.slice(vfio_pci_hot_reset.size).buffer)]
        seen = { argsz, flags, count, fds }
        return 0
      },
    })

    await hotReset(kernel, DEVICE, [7, 11] as GroupFd[])

    expect(seen).toEqual({ argsz: 20, flags: 0, count: 2, fds: [7, 11] })
  })

  test.each([
    ['EINVAL', 'RESET_BLOCKED'],
    ['ENOTTY', 'DEVICE_GONE'],
    ['EAGAIN', 'DEVICE_IN_USE'],
    ['EBUSY', 'DEVICE_IN_USE'],
    ['EIO', 'DEVICE_ASLEEP'],
  ] as const)('that the kernel refuses with %s is %s', async (errno, reason) => {
    const kernel = answering({ [VFIO_DEVICE_PCI_HOT_RESET.number]: () => -ERRNO[errno] })

    await expect(hotReset(kernel, DEVICE, [7 as GroupFd])).rejects.toMatchObject({ reason })
  })
})
