/**
 * The writes to sysfs: each is one write(2) to a file whose path is put together here, of names that were
 * checked. Both directions are in this file: what the daemon writes through the port, as a request, and a
 * request as the write that it is.
 */

import { ERRNO } from '../base/errno.ts'
import type { Kernel } from '../kernel/port.ts'
import { answered, type HelperLink } from './helper-link.ts'
import { isWrite, type WriteRequest } from './requests.ts'
import type { Serve } from './server.ts'

const PCI = '/sys/bus/pci'

/** The path and the bytes of a write. */
const writeOf = (request: WriteRequest): { readonly path: string; readonly data: string } => {
  switch (request.write) {
    case 'driver_override':
      return {
        path: `${PCI}/devices/${request.device}/driver_override`,
        data: `${request.driver ?? ''}\n`,
      }
    case 'unbind':
      return { path: `${PCI}/drivers/${request.driver}/unbind`, data: request.device }
    case 'drivers_probe':
      return { path: `${PCI}/drivers_probe`, data: request.device }
    case 'sriov_numvfs':
      return {
        path: `${PCI}/devices/${request.device}/sriov_numvfs`,
        data: String(request.count),
      }
  }
}

/** The request for a write through the port; undefined for one that no helper makes. */
export const requestOf = (path: string, data: string): WriteRequest | undefined => {
  const [, device = ''] = /^\/sys\/bus\/pci\/devices\/([^/]+)\/\w+$/.exec(path) ?? []
  const [, driver = ''] = /^\/sys\/bus\/pci\/drivers\/([^/]+)\/unbind$/.exec(path) ?? []
  const candidates: readonly WriteRequest[] = [
    { write: 'driver_override', device, driver: data.replace(/\n$/, '') || null },
    { write: 'unbind', device: data, driver },
    { write: 'drivers_probe', device: data },
    { write: 'sriov_numvfs', device, count: Number(data) },
  ]
  return candidates.find((request) => {
    if (!isWrite(request)) return false
    const made = writeOf(request)
    return made.path === path && made.data === data
  })
}

/** Writes by these calls of a kernel. */
export const serveWrites =
  (kernel: Pick<Kernel, 'writeFile'>): Serve =>
  (request, fds) => {
    if (!isWrite(request) || fds.length > 0) return undefined
    const { path, data } = writeOf(request)
    return kernel
      .writeFile(path, data)
      .then((answer) => (answer < 0 ? { errno: answer } : { value: answer }))
  }

/**
 * The `writeFile` of a port whose writes a helper makes: -EACCES for those that it does not make. It
 * takes as long as the kernel does; throws HELPER_UNAVAILABLE where the helper is gone, and then the write may
 * have been made or not.
 */
export const writeByHelper =
  (link: HelperLink): Kernel['writeFile'] =>
  async (path, data) => {
    const request = requestOf(path, data)
    if (request === undefined) return -ERRNO.EACCES
    const found = answered(await link.ask(request))
    return typeof found === 'number' ? found : Number(found.value)
  }
