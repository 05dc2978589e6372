/** The trace of a kernel's calls: what a line says, and that it changes nothing. */

import { describe, expect, test } from 'vitest'
import {
  VFIO_CHECK_EXTENSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_info,
} from '../../src/abi/container.ts'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../src/abi/feature.ts'
import { VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_SET_CONTAINER } from '../../src/abi/group.ts'
import { IOMMU_IOAS_ALLOC, iommu_ioas_alloc } from '../../src/abi/iommufd.ts'
import { type Fields, Struct } from '../../src/abi/layout.ts'
import { vfio_device_feature_mig_state } from '../../src/abi/mig-v2.ts'
import { REQUESTS } from '../../src/abi/requests.ts'
import type { IoctlArg, Kernel } from '../../src/kernel/port.ts'
import { TracedKernel } from '../../src/kernel/trace.ts'
import { seeRequest } from '../../src/kernel/trace-request.ts'

const nameOf = (fd: number): string => `fd ${fd}`

/** A kernel that answers as told, on a clock that goes on by 21 us with each look. */
const traced = (kernel: Partial<Kernel>) => {
  const lines: string[] = []
  let now = 0n
  const clock = () => {
    now += 21_500n
    return now
  }
  const write = (line: string): void => void lines.push(line)
  return { kernel: new TracedKernel(kernel as Kernel, write, clock), lines }
}

const opening = async (kernel: Kernel, ...paths: readonly string[]): Promise<void> => {
  for (const path of paths) await kernel.open(path, 2)
}

const withoutTime = (lines: readonly string[]): string[] =>
  lines.map((line) => line.replace(' <21us>\n', ''))

describe('a line of the trace', () => {
  test('has the kind of the fd, the request by its struct, the answer and the duration', async () => {
    const { kernel, lines } = traced({ open: async () => 12, ioctl: async () => 0 })
    await opening(kernel, '/dev/vfio/vfio')
    const { size } = vfio_iommu_type1_dma_map
    const map = { argsz: size, flags: 3, vaddr: 0x7000n, iova: 0x1000n, size: 0x1000n }

    await kernel.ioctl(12, VFIO_IOMMU_MAP_DMA.number, vfio_iommu_type1_dma_map.encode(map))

    expect(lines).toEqual([
      'open("/dev/vfio/vfio", 0x2) = container 12 <21us>\n',
      'ioctl(container 12, VFIO_IOMMU_MAP_DMA, {flags=3, vaddr=0x7000, iova=0x1000, size=0x1000}) = 0 <21us>\n',
    ])
  })

  test('has the errno by its name', async () => {
    const { kernel, lines } = traced({ open: async () => -13, ioctl: async () => -25 })
    await opening(kernel, '/dev/vfio/26')
    await kernel.ioctl(9, 0x3bff, new Uint8Array(24))

    expect(withoutTime(lines)).toEqual([
      'open("/dev/vfio/26", 0x2) = -EACCES',
      'ioctl(fd 9, 0x3bff, 24 bytes) = -ENOTTY',
    ])
  })

  test('shows what the kernel left in the argument, and how much lies behind the struct', async () => {
    const ioctl = async (_fd: number, _request: number, arg: IoctlArg) => {
      vfio_iommu_type1_info.write(arg as Uint8Array, { argsz: 128, flags: 3, cap_offset: 24 })
      return 0
    }
    const { kernel, lines } = traced({ open: async () => 5, ioctl })
    await opening(kernel, '/dev/vfio/vfio')
    const argsz = vfio_iommu_type1_info.size + 8

    await kernel.ioctl(5, VFIO_IOMMU_GET_INFO.number, vfio_iommu_type1_info.encode({ argsz }, 8))

    expect(withoutTime(lines)[1]).toBe(
      'ioctl(container 5, VFIO_IOMMU_GET_INFO, {flags=0, iova_pgsizes=0x0, cap_offset=0} + 8 bytes)' +
        ' = 0 {argsz=128, flags=3, cap_offset=24}',
    )
  })

  test('names fds by what they were opened as, the answered ones too, until they are closed', async () => {
    const fds = [3, 4, 5]
    const answers = [0, 6, 0]
    const { kernel, lines } = traced({
      open: async () => fds.shift() as number,
      close: async () => 0,
      ioctl: async () => answers.shift() as number,
      pread: async () => 2,
      pwrite: async () => -5,
    })
    await opening(kernel, '/dev/vfio/vfio', '/dev/vfio/26', '/dev/vfio/devices/vfio0')
    await kernel.ioctl(4, VFIO_GROUP_SET_CONTAINER.number, new Uint8Array([3, 0, 0, 0]))
    const name = new TextEncoder().encode('0000:00:04.0\0')
    await kernel.ioctl(4, VFIO_GROUP_GET_DEVICE_FD.number, name)
    await kernel.pread(6, new Uint8Array([6, 0]), (7n << 40n) + 4n)
    await kernel.pwrite(5, new Uint8Array(4096), 0n)
    await kernel.close(6)
    await kernel.ioctl(6, VFIO_CHECK_EXTENSION.number, 3)

    expect(withoutTime(lines.slice(3))).toEqual([
      'ioctl(group 4, VFIO_GROUP_SET_CONTAINER, container 3) = 0',
      'ioctl(group 4, VFIO_GROUP_GET_DEVICE_FD, "0000:00:04.0") = device 6',
      'pread(device 6, 2 bytes, region 7 at 0x4) = 2 0600',
      'pwrite(device 5, 4096 bytes, region 0 at 0x0) = -EIO',
      'close(device 6) = 0',
      'ioctl(fd 6, VFIO_CHECK_EXTENSION, 3) = 0',
    ])
  })

  test('keeps the token of a physical function to itself', async () => {
    const { kernel, lines } = traced({ open: async () => 4, ioctl: async () => -22 })
    await opening(kernel, '/dev/vfio/26')
    const name = '0000:06:0d.0 vf_token=14d63f20-8445-11ea-8900-1f9ce7d5650d'

    await kernel.ioctl(4, VFIO_GROUP_GET_DEVICE_FD.number, new TextEncoder().encode(`${name}\0`))

    expect(withoutTime(lines)[1]).toBe(
      'ioctl(group 4, VFIO_GROUP_GET_DEVICE_FD, "0000:06:0d.0 vf_token=...") = -EINVAL',
    )
  })

  test('decodes the payload of a feature, and knows the data_fd that it answers', async () => {
    const ioctl = async (_fd: number, _request: number, arg: IoctlArg) => {
      vfio_device_feature_mig_state.write(arg as Uint8Array, { data_fd: 30 }, 8)
      return 0
    }
    const { kernel, lines } = traced({ open: async () => 8, ioctl, read: async () => 4096 })
    await opening(kernel, '/dev/vfio/devices/vfio3')
    const { size } = vfio_device_feature
    const payload = vfio_device_feature_mig_state.encode({ device_state: 3 })
    const flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    const arg = vfio_device_feature.encode({ argsz: size + payload.length, flags }, payload.length)
    arg.set(payload, size)

    await kernel.ioctl(8, VFIO_DEVICE_FEATURE.number, arg)
    await kernel.read(30, new Uint8Array(1 << 20))

    expect(withoutTime(lines.slice(1))).toEqual([
      'ioctl(device 8, VFIO_DEVICE_FEATURE, {flags=SET|MIG_DEVICE_STATE} {device_state=3, data_fd=0})' +
        ' = 0 {data_fd=30}',
      'read(data_fd 30, 1048576 bytes) = 4096',
    ])
  })

  test('takes no fd for a data_fd where a feature only reads that there is none', async () => {
    const { kernel, lines } = traced({
      open: async () => 8,
      ioctl: async () => 0,
      close: async () => 0,
    })
    await opening(kernel, '/dev/vfio/devices/vfio3')
    const flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
    await kernel.ioctl(8, VFIO_DEVICE_FEATURE.number, vfio_device_feature.encode({ flags }, 8))

    await kernel.close(0)

    expect(withoutTime(lines).at(-1)).toBe('close(fd 0) = 0')
  })

  test('takes the requests of an iommufd on /dev/vfio/vfio, which may be one', async () => {
    const { kernel, lines } = traced({ open: async () => 12, ioctl: async () => 0 })
    await opening(kernel, '/dev/vfio/vfio')
    const alloc = iommu_ioas_alloc.encode({ size: iommu_ioas_alloc.size })

    await kernel.ioctl(12, IOMMU_IOAS_ALLOC.number, alloc)

    expect(lines[1]).toContain('ioctl(container 12, IOMMU_IOAS_ALLOC, {flags=0, out_ioas_id=0})')
  })

  test('has the calls on files of sysfs', async () => {
    const { kernel, lines } = traced({
      readFile: async () => new Uint8Array(7),
      writeFile: async () => -16,
      readDir: async () => ['a', 'b'],
      readLink: async () => '../x',
    })
    await kernel.readFile('/sys/a')
    await kernel.writeFile('/sys/b', 'vfio-pci\n')
    await kernel.readDir('/sys')
    await kernel.readLink('/sys/c')

    expect(withoutTime(lines)).toEqual([
      'readFile("/sys/a") = 7 bytes',
      'writeFile("/sys/b", "vfio-pci\\n") = -EBUSY',
      'readDir("/sys") = 2 names',
      'readLink("/sys/c") = "../x"',
    ])
  })
})

describe('every request of the headers', () => {
  const structs = REQUESTS.filter(({ argument }) => argument instanceof Struct)

  test.each(structs)('$cName is decoded by its struct', ({ cName, number, on, argument }) => {
    const codec = argument as Struct<Fields>
    const values = Object.keys(codec.types).map((name, index) => [name, index + 1] as const)
    const bytes = codec.encode(Object.fromEntries(values))

    const { text } = seeRequest(on, number, bytes, nameOf)

    expect(text).toMatch(new RegExp(`^${cName}, \\{`))
    const shown = text.slice(text.indexOf('{') + 1, -1).split(', ')
    // The flags of a feature are names.
    for (const [name, value] of cName === 'VFIO_DEVICE_FEATURE' ? [] : values)
      expect([`${name}=${value}`, `${name}=0x${value.toString(16)}`]).toContain(
        shown.find((field) => field.startsWith(`${name}=`)),
      )
  })

  test.each(REQUESTS)('$cName is a line even where its argument is cut', (request) => {
    const { number, on, cName } = request

    expect(seeRequest(on, number, new Uint8Array(3), nameOf).text).toContain(cName)
    expect(seeRequest(on, number, undefined, nameOf).text).toContain(cName)
  })

  test('are told apart by the fd where two have one number', () => {
    const { number } = VFIO_IOMMU_GET_INFO
    const seen = (on: 'container' | 'device' | undefined) =>
      seeRequest(on, number, new Uint8Array(3), nameOf).text

    expect(seen('container')).toBe('VFIO_IOMMU_GET_INFO, 3 bytes')
    expect(seen('device')).toBe('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 3 bytes')
    expect(seen(undefined)).toBe('0x3b70, 3 bytes')
  })
})

describe('a traced call', () => {
  test('is the call itself: made at once, and its own promise', () => {
    const answer = new Promise<number>(() => {})
    let made = 0
    const { kernel } = traced({
      close: () => {
        made += 1
        return answer
      },
    })

    expect(kernel.close(3)).toBe(answer)
    expect(made).toBe(1)
  })

  test('has its line before the caller goes on', async () => {
    const { kernel, lines } = traced({ close: async () => 0 })

    await kernel.close(3)

    expect(lines).toEqual(['close(fd 3) = 0 <21us>\n'])
  })

  test('answers although its line cannot be written', async () => {
    const full = () => {
      throw new Error('no space left')
    }
    const kernel = new TracedKernel({ close: async () => 7 } as unknown as Kernel, full)

    expect(await kernel.close(3)).toBe(7)
  })

  test('answers although its line cannot be made', async () => {
    const clock = () => {
      throw new Error('no clock')
    }
    const ioctl = async () => 7
    const kernel = new TracedKernel({ ioctl } as unknown as Kernel, () => {}, clock)

    expect(await kernel.ioctl(3, VFIO_DEVICE_FEATURE.number, new Uint8Array(1))).toBe(7)
  })

  test('fails as the call does', async () => {
    const { kernel, lines } = traced({
      close: async () => {
        throw new Error('a bug')
      },
    })

    await expect(kernel.close(3)).rejects.toThrow('a bug')
    expect(lines).toEqual(['close(fd 3) = failed: Error: a bug <21us>\n'])
  })
})
