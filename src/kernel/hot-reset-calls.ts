/**
 * Typed calls for a hot reset: a reset of the bus below a bridge, and with it of every function there
 * (vfio.h: VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VFIO_DEVICE_PCI_HOT_RESET). The caller proves that it
 * owns them all by an open file of each of their groups.
 */

import {
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_PCI_HOT_RESET,
  vfio_pci_dependent_device,
} from '../abi/device.ts'
import { dataView } from '../abi/layout.ts'
import type { DeviceFd, GroupFd } from '../base/units.ts'
import { deviceInfo } from './device-calls.ts'
import { explained, type Judge } from './diagnosis.ts'
import type { Kernel } from './port.ts'
import { wasErrno } from './refusal.ts'
import { request } from './request.ts'

/** How many functions there is room for in the answer, tried in turn: a bus has 256, and may have bridges. */
const ROOMS = [16, 1024, 65_536] as const

const hexDigits = (value: number, digits: number): string =>
  value.toString(16).padStart(digits, '0')

/** `0000:01:00.1` */
const addressOf = (at: { segment: number; bus: number; devfn: number }): string =>
  `${hexDigits(at.segment, 4)}:${hexDigits(at.bus, 2)}:${hexDigits(at.devfn >> 3, 2)}.${at.devfn & 7}`

/** ENODEV of a device that answers other requests: its bus has no bridge that could reset it. */
const judgeBus =
  (kernel: Kernel, fd: DeviceFd): Judge =>
  async () => {
    await deviceInfo(kernel, fd)
    return [{ cause: 'device-gone', isSo: false }]
  }

/** The addresses of the functions that a hot reset would hit, the device's own among them. */
export async function hotResetScope(kernel: Kernel, fd: DeviceFd): Promise<string[]> {
  const act = 'find what a hot reset would hit'
  const { size } = vfio_pci_dependent_device
  const scope = async (room: number): Promise<string[]> => {
    const tail = new Uint8Array(room * size)
    const { count } = await request(kernel, fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, {}, act, tail)
    return Array.from({ length: count }, (_, index) =>
      addressOf(vfio_pci_dependent_device.decode(tail, index * size)),
    )
  }
  const [first, ...larger] = ROOMS
  let answer = explained(scope(first), judgeBus(kernel, fd))
  for (const room of larger) {
    try {
      return await answer
    } catch (error) {
      if (!wasErrno(error, 'ENOSPC')) throw error
      answer = scope(room)
    }
  }
  return answer
}

/** Reset every function of the bus of the device; the groups are those of all of them. */
export async function hotReset(
  kernel: Kernel,
  fd: DeviceFd,
  groups: readonly GroupFd[],
): Promise<void> {
  const tail = new Uint8Array(groups.length * 4)
  const view = dataView(tail)
  for (const [index, group] of groups.entries()) view.setInt32(index * 4, group, true)
  const given = { count: groups.length }
  const act = 'reset the bus of the device'
  await explained(
    request(kernel, fd, VFIO_DEVICE_PCI_HOT_RESET, given, act, tail),
    judgeBus(kernel, fd),
  )
}
