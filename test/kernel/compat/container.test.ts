/** The machine of the compat suites: its /dev/vfio/vfio is an iommufd that serves as a container. */

import { expect, test } from 'vitest'
import { VFIO_TYPE1v2_IOMMU, VFIO_UPDATE_VADDR } from '../../../src/abi/container.ts'
import { IOMMU_IOAS_ALLOC, iommu_ioas_alloc } from '../../../src/abi/iommufd.ts'
import { said } from '../../contract/answers.ts'
import { describeContract } from '../../contract/backends.ts'
import { checkExtension, mapDma, setContainer, setIommu, unmapDma } from '../../contract/calls.ts'

describeContract('/dev/vfio/vfio of the compat machine', (machine) => {
  const { kernel } = machine

  test('answers the requests of an iommufd', async () => {
    const container = await machine.container()
    const alloc = iommu_ioas_alloc.encode({ size: iommu_ioas_alloc.size })

    expect(await kernel.ioctl(container, IOMMU_IOAS_ALLOC.number, alloc)).toBe(0)
    expect(iommu_ioas_alloc.decode(alloc).out_ioas_id).toBeGreaterThan(0)
  })

  test('is a container for a group, in which memory is mapped and a device opened', async () => {
    const [edu] = await machine.edus()
    const container = await machine.container()
    const group = await machine.group(edu)
    const { segment } = await machine.memory(0x1000)

    expect(said(await setContainer(kernel, group, container))).toBe(0)
    expect(said(await setIommu(kernel, container, VFIO_TYPE1v2_IOMMU))).toBe(0)
    expect(await checkExtension(kernel, container, VFIO_UPDATE_VADDR)).toBe(0)
    const range = { iova: 0x10_0000n, size: 0x1000n }
    expect(said(await mapDma(kernel, container, { ...range, vaddr: segment.address }))).toBe(0)
    expect(await machine.deviceOf(group, edu)).toBeGreaterThan(0)
    expect(await unmapDma(kernel, container, range)).toMatchObject({ answer: 0, size: 0x1000n })
  })
})
