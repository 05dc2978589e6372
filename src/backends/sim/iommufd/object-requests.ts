/** Requests about objects as such: IOMMU_DESTROY, IOMMU_IOAS_ALLOC, IOMMU_FAULT_QUEUE_ALLOC. */

import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_IOAS_ALLOC,
  iommu_destroy,
  iommu_fault_alloc,
  iommu_ioas_alloc,
} from '../../../abi/iommufd.ts'
import { ERRNO } from '../../../base/errno.ts'
import { type Operation, operation } from './command.ts'
import { FaultFile, FaultQueue } from './fault-queue.ts'

const destroy = operation(
  IOMMU_DESTROY,
  '6.2',
  iommu_destroy,
  iommu_destroy.size,
  ({ context, cmd }) => context.objects.destroy(cmd.id),
)

const allocIoas = operation(
  IOMMU_IOAS_ALLOC,
  '6.2',
  iommu_ioas_alloc,
  iommu_ioas_alloc.size,
  ({ context, cmd, respond }) => {
    if (cmd.flags !== 0) return -ERRNO.EOPNOTSUPP
    cmd.out_ioas_id = context.objects.nextId
    const responded = respond()
    if (responded === 0) context.objects.insert(context.newIoas())
    return responded
  },
)

const allocFaultQueue = operation(
  IOMMU_FAULT_QUEUE_ALLOC,
  '6.11',
  iommu_fault_alloc,
  iommu_fault_alloc.size,
  ({ context, caller, cmd, respond }) => {
    if (cmd.flags !== 0) return -ERRNO.EOPNOTSUPP
    const queue = new FaultQueue()
    const fd = caller.install(new FaultFile(queue, context.file))
    cmd.out_fault_id = context.objects.nextId
    cmd.out_fault_fd = fd
    const responded = respond()
    if (responded === 0) context.objects.insert(queue)
    else caller.close(fd)
    return responded
  },
)

export const objectRequests: readonly Operation[] = [destroy, allocIoas, allocFaultQueue]
