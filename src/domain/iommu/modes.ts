/**
 * The ways in which a host offers an IOMMU to an address space, in one table as the kernel selftests
 * have it (iommu_modes). Which one it is, is found out when an address space is made.
 */

import type { ContainerFd } from '../../base/units.ts'
import { isIommufd, openContainer } from '../../kernel/container-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { BackendKind, IommuBackend } from './backend.ts'
import { CompatBackend } from './compat.ts'
import { Type1Backend } from './type1.ts'

const MODES: Readonly<Record<BackendKind, (kernel: Kernel, fd: ContainerFd) => IommuBackend>> = {
  type1: (kernel, fd) => new Type1Backend(kernel, fd),
  'iommufd-compat': (kernel, fd) => new CompatBackend(kernel, fd),
}

/** Open /dev/vfio/vfio, and ask whose container that is. */
export async function openBackend(kernel: Kernel): Promise<IommuBackend> {
  const fd = await openContainer(kernel)
  const kind = (await isIommufd(kernel, fd)) ? 'iommufd-compat' : 'type1'
  return MODES[kind](kernel, fd)
}
