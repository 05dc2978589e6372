/** The looks: what they read is read here, and nothing is changed. */

import { ERRNO } from '../base/errno.ts'
import { vfioHolders } from '../kernel/holders.ts'
import { hostFacts } from '../kernel/host-facts.ts'
import type { Kernel } from '../kernel/port.ts'
import { hostDevice } from '../kernel/sysfs.ts'
import { sys } from '../os/libc.ts'
import { imageNow, type MmPin, pinMm } from '../os/mm.ts'
import { isAlive, pidOf, sameMm } from '../os/process.ts'
import { factsToJson } from './host-facts-json.ts'
import { FDS_OF, isLook, type LookRequest } from './requests.ts'
import type { HelperServed, Serve } from './server.ts'

/** Looks through the calls of this kernel. */
export const serveLooks =
  (kernel: Kernel): Serve =>
  (request, fds) =>
    isLook(request) && fds.length === FDS_OF[request.look] ? look(kernel, request, fds) : undefined

const look = async (
  kernel: Kernel,
  request: LookRequest,
  fds: readonly number[],
): Promise<HelperServed> => {
  const [first = -1, second = -1] = fds
  switch (request.look) {
    case 'pin':
      return pinOf(first, (pin) => {
        const pagemap = pin.pagemap === undefined ? undefined : sys.dup(pin.pagemap)
        if (pagemap !== undefined && pagemap < 0) return { errno: pagemap }
        return { value: pin.image, fds: pagemap === undefined ? [] : [pagemap] }
      })
    case 'image':
      return imageOf(first)
    case 'same-mm':
      return { value: (await isSame(first, second)) ?? null }
    case 'vfio-holders':
      return { value: await vfioHolders(kernel) }
    case 'host-facts': {
      const { functions } = request
      const found = await Promise.all(functions.map((name) => hostDevice(kernel, name)))
      const devices = found.filter((device) => device !== undefined)
      return { value: factsToJson(await hostFacts(kernel, devices)) }
    }
  }
}

/** The pin of the process of a pidfd. The pid cannot have passed to another one: it lives afterwards. */
const pinOf = async (pidfd: number, use: (pin: MmPin) => HelperServed): Promise<HelperServed> => {
  const pid = pidOf(pidfd)
  if (pid <= 0) return { errno: pid === 0 ? -ERRNO.ESRCH : pid }
  const pin = await pinMm(pid, { pidfd })
  if (typeof pin === 'number') return { errno: pin }
  const served = use(pin)
  pin.close()
  return served
}

/** The same of the image alone, which waits for nothing. */
const imageOf = (pidfd: number): HelperServed => {
  const pid = pidOf(pidfd)
  if (pid <= 0) return { errno: pid === 0 ? -ERRNO.ESRCH : pid }
  const image = imageNow(pid)
  if (typeof image === 'number') return { errno: image }
  return isAlive(pidfd) ? { value: image } : { errno: -ERRNO.ESRCH }
}

const isSame = async (one: number, other: number): Promise<boolean | undefined> => {
  const [pidA, pidB] = [pidOf(one), pidOf(other)]
  if (pidA <= 0 || pidB <= 0) return undefined
  const same = await sameMm(pidA, pidB)
  return isAlive(one) && isAlive(other) ? same : undefined
}
