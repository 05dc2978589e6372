/** The ids that a PCI driver was given at run time: drivers/pci/pci-driver.c, new_id and remove_id. */

import { ERRNO } from '../../../base/errno.ts'
import type { FunctionSpec } from '../spec/machine-spec.ts'

interface DynamicId {
  readonly vendor: number
  readonly device: number
  /** Undefined for any. */
  readonly subsystemVendor: number | undefined
  readonly subsystemDevice: number | undefined
  readonly classCode: number
  readonly classMask: number
}

export class DynamicIds {
  readonly #ids = new Map<string, DynamicId[]>()

  /** A write to `new_id`; -EEXIST for one that the driver knows already. */
  add(driver: string, text: string): number {
    const id = parse(text)
    if (id === undefined) return -ERRNO.EINVAL
    const known = this.#ids.get(driver) ?? []
    if (known.some((other) => isSame(other, id))) return -ERRNO.EEXIST
    this.#ids.set(driver, [...known, id])
    return 0
  }

  /** A write to `remove_id`: devices that the driver has stay with it. */
  remove(driver: string, text: string): number {
    const wanted = parse(text)
    if (wanted === undefined) return -ERRNO.EINVAL
    const known = this.#ids.get(driver) ?? []
    const found = known.find((id) => isSame(id, wanted))
    if (found === undefined) return -ERRNO.ENODEV
    this.#ids.set(
      driver,
      known.filter((id) => id !== found),
    )
    return 0
  }

  matches(driver: string, spec: FunctionSpec): boolean {
    return (this.#ids.get(driver) ?? []).some((id) => isFor(id, spec))
  }
}

/** Up to seven numbers in hexadecimal; those that are not said are any. */
const parse = (text: string): DynamicId | undefined => {
  const words = text.trim().split(/\s+/)
  const end = words.findIndex((word) => !/^(0x)?[0-9a-f]+$/i.test(word))
  const numbers = words.slice(0, end < 0 ? 7 : end).map((word) => Number.parseInt(word, 16))
  const [vendor, device, subsystemVendor, subsystemDevice, classCode = 0, classMask = 0] = numbers
  if (vendor === undefined || device === undefined) return undefined
  return { vendor, device, subsystemVendor, subsystemDevice, classCode, classMask }
}

const isSame = (known: DynamicId, { vendor, device, ...wanted }: DynamicId): boolean =>
  known.vendor === vendor &&
  known.device === device &&
  isAny(wanted.subsystemVendor, known.subsystemVendor) &&
  isAny(wanted.subsystemDevice, known.subsystemDevice) &&
  ((known.classCode ^ wanted.classCode) & wanted.classMask) === 0

const isFor = (id: DynamicId, spec: FunctionSpec): boolean =>
  id.vendor === spec.vendor &&
  id.device === spec.device &&
  isAny(id.subsystemVendor, spec.subsystemVendor) &&
  isAny(id.subsystemDevice, spec.subsystemDevice) &&
  ((id.classCode ^ spec.classCode) & id.classMask) === 0

const isAny = (wanted: number | undefined, found: number | undefined): boolean =>
  wanted === undefined || wanted === found
