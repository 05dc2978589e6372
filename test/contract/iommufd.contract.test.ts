/** iommufd.h: the general format of requests, objects and options. No device is needed. */

import { beforeEach, describe, expect, test } from 'vitest'
import type { Ioctl } from '../../src/abi/ioctl.ts'
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC,
  IOMMU_IOAS_ALLOC,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_RLIMIT_MODE,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  iommu_fault_alloc,
  iommu_hwpt_alloc,
  iommu_ioas_alloc,
  iommu_option,
} from '../../src/abi/iommufd.ts'
import { said } from './answers.ts'
import { describeType1 } from './backends.ts'
import { type Iommufd, openIommufd } from './iommufd-calls.ts'
import { IOMMUFD_REQUESTS } from './iommufd-requests.ts'

/** Each request with the size of its struct and what the kernel asks for at least. */
const REQUESTS = Object.values(IOMMUFD_REQUESTS).map(
  ({ request, codec, min }) => [request, codec.size, min] as const,
)

describeType1('it opens no container')('an iommufd', (machine) => {
  const { kernel } = machine
  let iommufd: Iommufd

  beforeEach(async () => {
    iommufd = await openIommufd(machine)
  })

  /** A struct of `length` bytes that says so; zeros, but for the last byte. */
  const sized = async (
    request: Pick<Ioctl<'iommufd'>, 'number'>,
    length: number,
    last = 0,
  ): Promise<unknown> => {
    const bytes = Buffer.alloc(Math.max(length, 8))
    bytes.writeUInt32LE(length)
    if (last !== 0) bytes[length - 1] = last
    return said(await kernel.ioctl(iommufd.fd, request.number, bytes))
  }

  test('is closed without a trace (simple_close)', async () => {
    await iommufd.newIoas()

    expect(await machine.close(iommufd.fd)).toBe(0)
  })

  test('numbers the objects of each open from 1', async () => {
    const other = await openIommufd(machine)

    expect([await iommufd.newIoas(), await iommufd.newIoas(), await other.newIoas()]).toEqual([
      1, 2, 1,
    ])
  })

  test('gives the lowest free id again', async () => {
    const [first] = [await iommufd.newIoas(), await iommufd.newIoas(), await iommufd.newIoas()]
    await iommufd.destroy(2)
    await iommufd.destroy(first)

    expect([await iommufd.newIoas(), await iommufd.newIoas(), await iommufd.newIoas()]).toEqual([
      1, 2, 4,
    ])
  })

  test('cannot be read or written: EINVAL', async () => {
    expect(said(await kernel.read(iommufd.fd, new Uint8Array(8)))).toBe('EINVAL')
    expect(said(await kernel.write(iommufd.fd, new Uint8Array(8)))).toBe('EINVAL')
  })

  describe('the general format (cmd_fail)', () => {
    test('refuses a request without a struct: EFAULT', async () => {
      for (const [request] of REQUESTS)
        expect(said(await kernel.ioctl(iommufd.fd, request.number, undefined))).toBe('EFAULT')
    })

    test('refuses a request it does not know: ENOTTY', async () => {
      expect(await sized({ number: 0x3b9f }, 16)).toBe('ENOTTY')
      expect(said(await kernel.ioctl(iommufd.fd, 0x3b00, undefined))).toBe('ENOTTY')
    })

    test('refuses the number of a request with another type: ENOTTY', async () => {
      expect(await sized({ number: 0x3c80 }, 16)).toBe('ENOTTY')
    })
  })

  describe('the size of a struct (cmd_length)', () => {
    for (const [request, size, min] of REQUESTS) {
      test(`${request.cName} refuses a byte too few: EINVAL`, async () => {
        expect(await sized(request, min - 1)).toBe('EINVAL')
      })

      test(`${request.cName} refuses a tail that says something: E2BIG`, async () => {
        expect(await sized(request, size + 1, 1)).toBe('E2BIG')
      })

      test(`${request.cName} takes a tail of zeros as if it were not there`, async () => {
        const exact = await sized(request, size)
        iommufd = await openIommufd(machine)

        expect(await sized(request, size + 1)).toBe(exact)
      })
    }

    test('a struct of an earlier kernel is answered as far as it goes', async () => {
      const id = await iommufd.newIoas()
      const bytes = iommu_hwpt_alloc.encode({ size: 24, dev_id: id, pt_id: id })

      expect(said(await kernel.ioctl(iommufd.fd, IOMMU_HWPT_ALLOC.number, bytes))).toBe('ENOENT')
    })
  })

  describe('IOMMU_DESTROY (cmd_ex_fail)', () => {
    test('refuses an id that nothing has: ENOENT', async () => {
      expect(await iommufd.destroy(0)).toBe('ENOENT')
      expect(await iommufd.destroy(77)).toBe('ENOENT')
      expect(await iommufd.destroy(0xffff_ffff)).toBe('ENOENT')
    })

    test('destroys an ioas once', async () => {
      const id = await iommufd.newIoas()

      expect(await iommufd.destroy(id)).toBe(0)
      expect(await iommufd.destroy(id)).toBe('ENOENT')
    })

    test('knows no object of another iommufd: ENOENT', async () => {
      const other = await openIommufd(machine)
      const id = await other.newIoas()

      expect(await iommufd.destroy(id)).toBe('ENOENT')
    })
  })

  describe('IOMMU_IOAS_ALLOC', () => {
    test('refuses flags: EOPNOTSUPP', async () => {
      const { answer } = await iommufd.ask(IOMMU_IOAS_ALLOC, iommu_ioas_alloc, { flags: 1 })

      expect(answer).toBe('EOPNOTSUPP')
    })
  })

  describe('IOMMU_OPTION (global_options)', () => {
    test('RLIMIT_MODE is 0, and can be set to 0 and 1 and nothing else: EINVAL', async () => {
      expect(await iommufd.option(IOMMU_OPTION_RLIMIT_MODE, 0)).toBe(0n)
      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 1n)).toBe(0)
      expect(await iommufd.option(IOMMU_OPTION_RLIMIT_MODE, 0)).toBe(1n)
      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 2n)).toBe('EINVAL')
      expect(await iommufd.option(IOMMU_OPTION_RLIMIT_MODE, 0)).toBe(1n)
      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 0n)).toBe(0)
    })

    test('RLIMIT_MODE is of no object: EOPNOTSUPP', async () => {
      const ioas = await iommufd.newIoas()

      expect(await iommufd.option(IOMMU_OPTION_RLIMIT_MODE, ioas)).toBe('EOPNOTSUPP')
      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, ioas, 0n)).toBe('EOPNOTSUPP')
    })

    test('RLIMIT_MODE cannot be set while there is an object: EBUSY', async () => {
      const ioas = await iommufd.newIoas()
      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 2n)).toBe('EBUSY')
      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 0n)).toBe('EBUSY')

      await iommufd.destroy(ioas)

      expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 0n)).toBe(0)
    })

    test('HUGE_PAGES is of an ioas: ENOENT', async () => {
      expect(await iommufd.option(IOMMU_OPTION_HUGE_PAGES, 0)).toBe('ENOENT')
      expect(await iommufd.setHugePages(0, 1n)).toBe('ENOENT')
    })

    test('refuses an option, an operation and reserved bits it does not know: EOPNOTSUPP', async () => {
      const ioas = await iommufd.newIoas()
      const ask = async (values: object) =>
        (await iommufd.ask(IOMMU_OPTION, iommu_option, values)).answer

      expect(await ask({ option_id: 2, object_id: ioas })).toBe('EOPNOTSUPP')
      expect(await ask({ option_id: 0, op: 2 })).toBe('EOPNOTSUPP')
      expect(await ask({ option_id: 1, op: 2, object_id: ioas })).toBe('EOPNOTSUPP')
      expect(await ask({ option_id: 0, op: 1, __reserved: 1 })).toBe('EOPNOTSUPP')
    })
  })

  describe('IOMMU_VFIO_IOAS (vfio_ioas)', () => {
    test('has none until one is set, and none once it is cleared: ENODEV', async () => {
      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_GET)).answer).toBe('ENODEV')
      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_SET, 0)).answer).toBe('ENOENT')
      const ioas = await iommufd.newIoas()

      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_SET, ioas)).answer).toBe(0)
      expect(await iommufd.vfioIoas(IOMMU_VFIO_IOAS_GET)).toMatchObject({
        answer: 0,
        ioas_id: ioas,
      })
      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_CLEAR)).answer).toBe(0)
      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_GET)).answer).toBe('ENODEV')
    })

    test('is cleared when the ioas is destroyed', async () => {
      const ioas = await iommufd.newIoas()
      await iommufd.vfioIoas(IOMMU_VFIO_IOAS_SET, ioas)

      expect(await iommufd.destroy(ioas)).toBe(0)

      expect((await iommufd.vfioIoas(IOMMU_VFIO_IOAS_GET)).answer).toBe('ENODEV')
    })

    test('refuses an operation it does not know: EOPNOTSUPP', async () => {
      expect((await iommufd.vfioIoas(3)).answer).toBe('EOPNOTSUPP')
    })
  })

  describe('IOMMU_FAULT_QUEUE_ALLOC', () => {
    const queue = async () => {
      const made = await iommufd.ask(IOMMU_FAULT_QUEUE_ALLOC, iommu_fault_alloc, {})
      expect(made.answer).toBe(0)
      return { id: made.out_fault_id, fd: machine.track(made.out_fault_fd) }
    }

    test('refuses flags: EOPNOTSUPP', async () => {
      const made = await iommufd.ask(IOMMU_FAULT_QUEUE_ALLOC, iommu_fault_alloc, { flags: 1 })

      expect(made.answer).toBe('EOPNOTSUPP')
    })

    test('keeps the queue in use while its fd is open: EBUSY', async () => {
      const { id, fd } = await queue()
      expect(await iommufd.destroy(id)).toBe('EBUSY')

      await machine.close(fd)

      expect(await iommufd.destroy(id)).toBe(0)
    })

    test('reads whole records only: ESPIPE', async () => {
      const { fd } = await queue()

      expect(said(await kernel.read(fd, new Uint8Array(40)))).toBe(0)
      expect(said(await kernel.read(fd, new Uint8Array(39)))).toBe('ESPIPE')
    })

    test('takes whole responses only: ESPIPE; to a fault that there is: EINVAL', async () => {
      const { fd } = await queue()

      expect(said(await kernel.write(fd, new Uint8Array(7)))).toBe('ESPIPE')
      expect(said(await kernel.write(fd, new Uint8Array(8)))).toBe('EINVAL')
    })
  })
})
