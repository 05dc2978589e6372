import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { VfiodError } from '../../src/base/error.ts'
import { explained } from '../../src/kernel/diagnosis.ts'
import { accept, isErrno, KernelRefusal, refusal, wasErrno } from '../../src/kernel/refusal.ts'

describe('accept', () => {
  test('passes on an answer that is not negative', () => {
    expect(accept('VFIO_IOMMU_MAP_DMA', 0, 'map')).toBe(0)
    expect(accept('VFIO_GROUP_GET_DEVICE_FD', 17, 'open')).toBe(17)
  })

  test('throws what was tried, the operation, the name of the errno, and its one cause', () => {
    const refuse = () => accept('VFIO_IOMMU_MAP_DMA', -ERRNO.EEXIST, 'map iova 0x1000..0x1fff')

    expect(refuse).toThrow(VfiodError)
    expect(refuse).toThrow(
      'Cannot map iova 0x1000..0x1fff: the kernel answered EEXIST to VFIO_IOMMU_MAP_DMA, because ' +
        'the kernel has a mapping there that vfiod did not make or could not undo; ',
    )
    expect(refuse).toThrow(
      expect.objectContaining({
        reason: 'IOVA_IN_USE',
        details: { op: 'VFIO_IOMMU_MAP_DMA', errno: 'EEXIST', causes: ['mapped-elsewhere'] },
      }),
    )
  })

  test('names every cause where there are several, and takes none of their reasons', () => {
    const refused = refusal('VFIO_GROUP_SET_CONTAINER', -ERRNO.EBUSY, 'add group 3')

    expect(refused.reason).toBe('KERNEL_REFUSED')
    expect(refused.message).toMatch(
      /^Cannot add group 3: the kernel answered EBUSY to VFIO_GROUP_SET_CONTAINER. Either .*vaddr.*; .* Or .*PASIDs.*; /,
    )
    expect(refused.details.causes).toEqual(['container-has-vaddr-invalid', 'group-domain-in-use'])
  })

  test('takes the reason of several causes where they share it, or the table has one for them', () => {
    expect(refusal('open /dev/vfio/GROUP', -ERRNO.EBUSY, 'open').reason).toBe('GROUP_IN_USE')
    expect(refusal('VFIO_IOMMU_MAP_DMA', -ERRNO.ENOMEM, 'map').reason).toBe('MEMLOCK_EXCEEDED')
  })

  test('says of an errno that the table lacks that it is unexpected', () => {
    const refused = refusal('VFIO_IOMMU_MAP_DMA', -ERRNO.EPIPE, 'map')

    expect(refused.reason).toBe('KERNEL_REFUSED')
    expect(refused.message).toBe(
      'Cannot map: the kernel answered EPIPE to VFIO_IOMMU_MAP_DMA, which is unexpected; see the kernel log, and report it',
    )
    expect(refusal('eventfd', -133, 'try').message).toContain('answered errno 133')
  })

  test('never has a code, which grpc-js would take for a status', () => {
    try {
      accept('VFIO_SET_IOMMU', -ERRNO.EBUSY, 'set')
      expect.unreachable()
    } catch (error) {
      expect(error).not.toHaveProperty('code')
    }
  })
})

describe('a diagnosis', () => {
  const refused = () => refusal('VFIO_GROUP_SET_CONTAINER', -ERRNO.EBUSY, 'add group 3')
  const explain = (judge: Parameters<typeof explained>[1], patienceMs?: number) =>
    explained(Promise.reject(refused()), judge, patienceMs).catch((error: unknown) => error)

  test('gives the refusal the cause that facts prove, in their words', async () => {
    const blockers = [{ subject: '0000:01:00.0', found: 'PASID 4', fix: 'end it' }]

    const error = await explain(async () => [
      { cause: 'group-domain-in-use', isSo: true, found: '0000:01:00.0 uses PASID 4', blockers },
    ])

    expect(error).toBeInstanceOf(KernelRefusal)
    expect(error).toMatchObject({
      reason: 'GROUP_IN_USE',
      message: expect.stringMatching(
        /^Cannot add group 3: 0000:01:00.0 uses PASID 4; end that use/,
      ),
      details: { op: 'VFIO_GROUP_SET_CONTAINER', errno: 'EBUSY', causes: ['group-domain-in-use'] },
    })
    expect((error as VfiodError).details.blockers).toEqual(blockers)
  })

  test('leaves the cause that remains when facts rule out the others', async () => {
    const error = await explain(async () => [{ cause: 'container-has-vaddr-invalid', isSo: false }])

    expect(error).toMatchObject({ reason: 'GROUP_IN_USE', causes: ['group-domain-in-use'] })
  })

  test('says that none of the known causes is so when facts rule out all', async () => {
    const error = await explain(async () => [
      { cause: 'container-has-vaddr-invalid', isSo: false },
      { cause: 'group-domain-in-use', isSo: false },
    ])

    expect(error).toMatchObject({
      reason: 'KERNEL_REFUSED',
      message: expect.stringContaining('none of the known causes is so'),
    })
  })

  test('judges the causes of the errno only', async () => {
    const error = await explain(async () => [
      { cause: 'firmware-region', isSo: true, found: 'a region' },
    ])

    expect(error).toMatchObject({ message: refused().message })
  })

  test('that fails leaves the refusal as it was', async () => {
    const error = await explain(() => Promise.reject(new Error('the facts are not there')))

    expect(error).toMatchObject({ reason: 'KERNEL_REFUSED', message: refused().message })
  })

  test('that does not end leaves the refusal as it was', async () => {
    const error = await explain(() => new Promise(() => {}), 1)

    expect(error).toMatchObject({ reason: 'KERNEL_REFUSED', message: refused().message })
  })

  test('does not touch what is not a refusal of the kernel, or what succeeds', async () => {
    const failed = new VfiodError('BAD_RANGE', 'Cannot')

    await expect(explained(Promise.reject(failed), async () => [])).rejects.toBe(failed)
    await expect(explained(Promise.resolve(3), async () => [])).resolves.toBe(3)
  })
})

test('isErrno and wasErrno tell one errno from another', () => {
  expect(isErrno(-ERRNO.EBUSY, 'EBUSY')).toBe(true)
  expect(isErrno(ERRNO.EBUSY, 'EBUSY')).toBe(false)
  expect(wasErrno(new VfiodError('BUG', '', { errno: 'EBUSY' }), 'EBUSY')).toBe(true)
  expect(wasErrno(new Error('EBUSY'), 'EBUSY')).toBe(false)
})
