/**
 * The ways in which a host offers an IOMMU to an address space, in one table as the kernel selftests
 * have it (iommu_modes). Which one it is, is found out when an address space is made.
 */

import type { ContainerFd, IovaRange } from '../../base/units.ts'
import { isIommufd, openContainer } from '../../kernel/container-calls.ts'
import { explained } from '../../kernel/diagnosis.ts'
import { containerFacts } from '../../kernel/group-facts.ts'
import type { Kernel } from '../../kernel/port.ts'
import { judgeContainer } from '../../rules/causes/judge-container.ts'
import type { BackendKind, IommuBackend } from './backend.ts'
import { CompatBackend } from './compat.ts'
import { Type1Backend } from './type1.ts'

const MODES: Readonly<Record<BackendKind, (kernel: Kernel, fd: ContainerFd) => IommuBackend>> = {
  type1: (kernel, fd) => new Type1Backend(kernel, fd),
  'iommufd-compat': (kernel, fd) => new CompatBackend(kernel, fd),
}

/** Open /dev/vfio/vfio, and ask whose container that is. */
export async function openBackend(kernel: Kernel): Promise<IommuBackend> {
  const judge = async () => judgeContainer(await containerFacts(kernel))
  const fd = await explained(openContainer(kernel), judge)
  const kind = (await isIommufd(kernel, fd)) ? 'iommufd-compat' : 'type1'
  return MODES[kind](kernel, fd)
}

/**
 * Where a group that is in no container could map if it had one for itself; undefined where nothing
 * limits it. It is put into a new container for that, which has no mappings and lives no longer.
 */
export async function reachOf(
  kernel: Kernel,
  group: number,
): Promise<readonly IovaRange[] | undefined> {
  const backend = await openBackend(kernel)
  try {
    await backend.attach(group)
    return (await backend.limits())?.apertures
  } finally {
    await backend.close()
  }
}
