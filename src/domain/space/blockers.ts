/** What keeps an address space, or a call on it, from going on, object by object. */

import type { Blocker, VfiodError } from '../../base/error.ts'
import { rangeText } from '../../base/units.ts'
import { isBridge } from '../../rules/viability.ts'
import type { GroupView } from '../host/inventory.ts'
import { isOfMemory, type MappingRecord } from '../state/records.ts'

/** A mapping that waits for its vaddr; nothing for one that has it. */
export const invalidBlocker = (mapping: MappingRecord): Blocker[] =>
  !isOfMemory(mapping) || mapping.isVaddrValid
    ? []
    : [{ subject: rangeText(mapping), found: 'without a valid vaddr', fix: 'update it' }]

/** The kernel, or a rule, refuses the group. */
export const refused = (group: number, error: VfiodError): Blocker => ({
  subject: `group ${group}`,
  found: error.message,
  fix: 'remove the group, or free it',
})

/** The host has no such group any more. */
export const gone = (group: number): Blocker => ({
  subject: `group ${group}`,
  found: 'gone: its devices were removed from the host',
  fix: 'remove the group, or plug its devices in again',
})

/** A group without a VFIO driver: the devices that one can be bound to, or that there is none. */
export const notBound = ({ group, devices }: GroupView): Blocker => {
  const bindable = devices.filter((device) => device.bus === 'pci' && !isBridge(device))
  const names = bindable.map(({ name }) => name).join(' and ')
  return {
    subject: `group ${group}`,
    found: 'without a device that is bound to a VFIO driver',
    fix:
      names === ''
        ? 'use another group: no device of it can be bound'
        : `bind ${names} to vfio-pci`,
  }
}
