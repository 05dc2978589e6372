/**
 * How devices are named: one canonical form for each, made where a name comes in. People and tools
 * write addresses with capital letters, without the domain (lspci) or with eight digits of it.
 */

const PCI = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([01]?[0-9a-f])\.([0-7])$/i
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const PCI_IDS = /^([0-9a-f]{4}):([0-9a-f]{4})$/i
/** `driver-type`, as mdev_supported_types names them. */
const MDEV_TYPE = /^[A-Za-z0-9_]+-[\w.-]+$/

const hex = (text: string, digits: number): string =>
  Number.parseInt(text, 16).toString(16).padStart(digits, '0')

/** `3B:00.0` and `00000000:3b:00.0` -> `0000:3b:00.0`; UUIDs in small letters; others as they are. */
export function canonicalName(name: string): string {
  const [, domain = '0', bus, slot, fn] = PCI.exec(name) ?? []
  if (bus !== undefined && slot !== undefined) {
    return `${hex(domain, 4)}:${hex(bus, 2)}:${hex(slot, 2)}.${fn}`
  }
  return UUID.test(name) ? name.toLowerCase() : name
}

/** An entry of an allow-list in its canonical form; undefined for one that can match no device. */
export function canonicalEntry(entry: string): string | undefined {
  if (entry === '*' || MDEV_TYPE.test(entry)) {
    return UUID.test(entry) ? entry.toLowerCase() : entry
  }
  const name = canonicalName(entry)
  return PCI.test(name) || PCI_IDS.test(entry) ? name.toLowerCase() : undefined
}
