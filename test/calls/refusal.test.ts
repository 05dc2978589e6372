import { describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { VfiodError } from '../../src/base/error.ts'
import { accept, isErrno, reasonOf, wasErrno } from '../../src/kernel/refusal.ts'

describe('accept', () => {
  test('passes on an answer that is not negative', () => {
    expect(accept('VFIO_IOMMU_MAP_DMA', 0, 'map')).toBe(0)
    expect(accept('VFIO_GROUP_GET_DEVICE_FD', 17, 'open')).toBe(17)
  })

  test('throws what was tried, the operation, and the name of the errno', () => {
    const refuse = () => accept('VFIO_IOMMU_MAP_DMA', -ERRNO.EEXIST, 'map iova 0x1000..0x1fff')

    expect(refuse).toThrow(VfiodError)
    expect(refuse).toThrow(
      'Cannot map iova 0x1000..0x1fff: the kernel answered EEXIST to VFIO_IOMMU_MAP_DMA',
    )
    expect(refuse).toThrow(
      expect.objectContaining({
        reason: 'IOVA_IN_USE',
        details: { op: 'VFIO_IOMMU_MAP_DMA', errno: 'EEXIST' },
      }),
    )
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

describe('reasonOf', () => {
  test.each([
    ['VFIO_IOMMU_MAP_DMA', 'EINVAL', 'IOVA_OUT_OF_APERTURE'],
    ['VFIO_IOMMU_UNMAP_DMA', 'EINVAL', 'MAPPING_STRADDLES'],
    ['VFIO_GROUP_SET_CONTAINER', 'EPERM', 'GROUP_NOT_VIABLE'],
    ['open /dev/vfio/GROUP', 'EBUSY', 'GROUP_IN_USE'],
    ['VFIO_DMA_UNMAP_FLAG_VADDR', 'EBUSY', 'REMAP_BLOCKED'],
    ['VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE', 'EINVAL', 'ARC_BLOCKED'],
  ])('reads the same errno by operation: %s %s is %s', (operation, errno, reason) => {
    expect(reasonOf(operation, errno)).toBe(reason)
  })

  test('reads an errno alone where the operation gives it no other meaning', () => {
    expect(reasonOf('VFIO_IOMMU_MAP_DMA', 'ENOMEM')).toBe('MEMLOCK_EXCEEDED')
    expect(reasonOf('anything', 'ENOTTY')).toBe('UNSUPPORTED')
    expect(reasonOf('anything', 'EPERM')).toBe('KERNEL_DENIED')
  })

  test('has a reason for an errno it does not know', () => {
    expect(reasonOf('anything', 'errno 133')).toBe('KERNEL_REFUSED')
    expect(() => accept('anything', -133, 'try')).toThrow('answered errno 133')
  })
})

test('isErrno and wasErrno tell one errno from another', () => {
  expect(isErrno(-ERRNO.EBUSY, 'EBUSY')).toBe(true)
  expect(isErrno(ERRNO.EBUSY, 'EBUSY')).toBe(false)
  expect(wasErrno(new VfiodError('BUG', '', { errno: 'EBUSY' }), 'EBUSY')).toBe(true)
  expect(wasErrno(new Error('EBUSY'), 'EBUSY')).toBe(false)
})
