import { describe, expect, test } from 'vitest'
import {
  VFIO_CHECK_EXTENSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
} from '../../src/abi/container.ts'
import { VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS } from '../../src/abi/device.ts'
import { vfio_device_feature } from '../../src/abi/feature.ts'
import { VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_SET_CONTAINER } from '../../src/abi/group.ts'
import { vfio_device_feature_mig_state } from '../../src/abi/mig-v2.ts'
import { ERRNO } from '../../src/base/errno.ts'
import type { ContainerFd, DeviceFd, GroupFd } from '../../src/base/units.ts'
import { armIrqs, readRegion, writeRegion } from '../../src/kernel/device-calls.ts'
import { getState, setState } from '../../src/kernel/migration-calls.ts'
import type { IoctlArg, Kernel } from '../../src/kernel/port.ts'
import { request, requestWhole, unless } from '../../src/kernel/request.ts'

const CONTAINER = 3 as ContainerFd
const GROUP = 4 as GroupFd
const DEVICE = 5 as DeviceFd

/** A kernel with one ioctl, which answers as `run` does. */
const answering = (run: (arg: IoctlArg) => number): Kernel =>
  ({ ioctl: async (_fd: number, _request: number, arg: IoctlArg) => run(arg) }) as unknown as Kernel

describe('a request', () => {
  test('takes the struct of the request, with its size filled in, and answers it', async () => {
    let seen: unknown
    const kernel = answering((arg) => {
      const bytes = arg as Uint8Array
      seen = vfio_iommu_type1_dma_unmap.decode(bytes)
      vfio_iommu_type1_dma_unmap.write(bytes, { size: 0x3000n })
      return 0
    })
    const given = { iova: 0x1000n, size: 0x2000n }

    const got = await request(kernel, CONTAINER, VFIO_IOMMU_UNMAP_DMA, given, 'unmap')

    expect(seen).toEqual({ argsz: 24, flags: 0, iova: 0x1000n, size: 0x2000n })
    expect(got.size).toBe(0x3000n)
  })

  test('takes bytes behind the struct, counted in its size, in and out', async () => {
    let argsz = 0
    const kernel = answering((arg) => {
      const bytes = arg as Uint8Array
      argsz = vfio_iommu_type1_dma_map.decode(bytes).argsz
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) + 1
      return 0
    })
    const tail = Uint8Array.of(7, 8)

    await request(kernel, CONTAINER, VFIO_IOMMU_MAP_DMA, {}, 'map', tail)

    expect(argsz).toBe(34)
    expect([...tail]).toEqual([7, 9])
  })

  test('takes a name with a NUL, an fd as an s32, a number by value, or nothing', async () => {
    const seen: IoctlArg[] = []
    const kernel = answering((arg) => seen.push(arg) - seen.length)

    await request(kernel, GROUP, VFIO_GROUP_GET_DEVICE_FD, 'ab', 'open')
    await request(kernel, GROUP, VFIO_GROUP_SET_CONTAINER, 258, 'add')
    await request(kernel, CONTAINER, VFIO_CHECK_EXTENSION, 10, 'check')
    await request(kernel, DEVICE, VFIO_DEVICE_RESET, undefined, 'reset')

    expect(seen).toEqual([Uint8Array.of(97, 98, 0), Uint8Array.of(2, 1, 0, 0), 10, undefined])
  })

  test('throws the refusal that a negative answer stands for', async () => {
    const kernel = answering(() => -ERRNO.EEXIST)

    await expect(request(kernel, CONTAINER, VFIO_IOMMU_MAP_DMA, {}, 'map it')).rejects.toThrow(
      'Cannot map it: the kernel answered EEXIST to VFIO_IOMMU_MAP_DMA',
    )
  })

  test('does not compile on an fd of another kind, or with fields of another struct', () => {
    const kernel = answering(() => 0)
    const calls = [
      // @ts-expect-error: a group request on a device.
      () => request(kernel, DEVICE, VFIO_GROUP_GET_DEVICE_FD, 'name', 'open'),
      // @ts-expect-error: a device request on a container.
      () => request(kernel, CONTAINER, VFIO_DEVICE_RESET, undefined, 'reset'),
      // @ts-expect-error: any number is not an fd.
      () => request(kernel, 3, VFIO_IOMMU_MAP_DMA, {}, 'map'),
      // @ts-expect-error: the struct has no such field.
      () => request(kernel, CONTAINER, VFIO_IOMMU_MAP_DMA, { length: 1n }, 'map'),
      // @ts-expect-error: the argument is a name.
      () => request(kernel, GROUP, VFIO_GROUP_GET_DEVICE_FD, 7, 'open'),
    ]

    expect(calls).toHaveLength(5)
  })
})

describe('an answer above zero', () => {
  test('is the fd or the number where the request says so', async () => {
    const kernel = answering(() => 17)

    expect(await request(kernel, GROUP, VFIO_GROUP_GET_DEVICE_FD, 'name', 'open')).toBe(17)
    expect(await request(kernel, CONTAINER, VFIO_CHECK_EXTENSION, 10, 'check')).toBe(17)
  })

  test('of SET_IRQS is how many vectors there are, and none is armed: LIMIT_REACHED', async () => {
    const kernel = answering(() => 1)
    const arm = armIrqs(kernel, DEVICE, { index: 2, start: 0, eventfds: [10, 11, 12, 13] })

    await expect(arm).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { op: 'VFIO_DEVICE_SET_IRQS', quota: { max: 1n, needed: 4n } },
    })
    await expect(arm).rejects.toThrow(
      'Cannot arm vectors 0..3 of IRQ index 2: 4 were asked for and the host has 1 to give, so nothing was done; ask for 1 at most, or free some that other devices hold',
    )
    expect(VFIO_DEVICE_SET_IRQS.answer).toBe('available')
  })

  test('is refused everywhere else: KERNEL_REFUSED', async () => {
    const kernel = answering(() => 2)

    await expect(request(kernel, CONTAINER, VFIO_IOMMU_MAP_DMA, {}, 'map')).rejects.toMatchObject({
      reason: 'KERNEL_REFUSED',
      message: expect.stringContaining('the kernel answered 2 to VFIO_IOMMU_MAP_DMA'),
    })
  })
})

describe('a request without a fixed length', () => {
  const needing = (bytes: number) => {
    const rooms: number[] = []
    const kernel = answering((arg) => {
      const info = arg as Uint8Array
      rooms.push(vfio_iommu_type1_info.decode(info).argsz)
      vfio_iommu_type1_info.write(info, { argsz: bytes, flags: 2 })
      if (info.length === bytes) info[bytes - 1] = 9
      return 0
    })
    return { kernel, rooms }
  }
  const ask = (kernel: Kernel) => requestWhole(kernel, CONTAINER, VFIO_IOMMU_GET_INFO, {}, 'ask')

  test('is made again with the room that the first answer names', async () => {
    const { kernel, rooms } = needing(40)

    const whole = await ask(kernel)

    expect(rooms).toEqual([24, 40])
    expect(whole).toHaveLength(40)
    expect(whole[39]).toBe(9)
    expect(vfio_iommu_type1_info.decode(whole)).toMatchObject({ argsz: 40, flags: 2 })
  })

  test('is made once where the struct is enough', async () => {
    const { kernel, rooms } = needing(24)

    expect(await ask(kernel)).toHaveLength(24)
    expect(rooms).toEqual([24])
  })
})

test('one errno may stand for undefined; another is thrown', async () => {
  const reset = (errno: number) =>
    request(
      answering(() => -errno),
      DEVICE,
      VFIO_DEVICE_RESET,
      undefined,
      'reset',
    )

  expect(await unless('ENOTTY', reset(ERRNO.ENOTTY))).toBeUndefined()
  await expect(unless('ENOTTY', reset(ERRNO.EIO))).rejects.toThrow('EIO')
})

describe('a feature', () => {
  test('is read and set by one envelope, whose flags name it', async () => {
    const seen: unknown[] = []
    const kernel = answering((arg) => {
      const bytes = arg as Uint8Array
      seen.push(vfio_device_feature.decode(bytes))
      vfio_device_feature_mig_state.write(bytes, { device_state: 3, data_fd: 30 }, 8)
      return 0
    })

    expect(await setState(kernel, DEVICE, 'STOP_COPY')).toBe(30)
    expect(await getState(kernel, DEVICE)).toBe('STOP_COPY')
    expect(seen).toEqual([
      { argsz: 16, flags: 0x2_0002 },
      { argsz: 16, flags: 0x1_0002 },
    ])
  })

  test('that the device lacks is undefined when it is read, and refused by its name when set', async () => {
    const kernel = answering(() => -ERRNO.ENOTTY)

    expect(await getState(kernel, DEVICE)).toBeUndefined()
    await expect(setState(kernel, DEVICE, 'STOP')).rejects.toMatchObject({
      reason: 'UNSUPPORTED',
      details: { op: 'VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE' },
    })
  })
})

describe('a region access that moves fewer bytes than asked', () => {
  const region = {
    ...{ index: 0, size: 64n, fdOffset: 0n },
    ...{ isReadable: true, isWritable: true, isMappable: false, areas: [] },
  }
  const kernel = { pread: async () => 2, pwrite: async () => 2 } as unknown as Kernel

  test('is refused when reading: the rest would be zeros that no device said', async () => {
    const read = readRegion(kernel, DEVICE, { region, offset: 8n, length: 4 })

    await expect(read).rejects.toMatchObject({ reason: 'OUT_OF_REGION' })
    await expect(read).rejects.toThrow(
      'Cannot read 4 bytes of region 0 at 0x8: the device moved 2 of 4 bytes',
    )
  })

  test('is refused when writing', async () => {
    const write = writeRegion(kernel, DEVICE, { region, offset: 8n, data: new Uint8Array(4) })

    await expect(write).rejects.toThrow('the device moved 2 of 4 bytes')
  })
})
