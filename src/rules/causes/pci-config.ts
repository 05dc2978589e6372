/** What is read from the configuration space of a PCI function (pci_regs.h), in its first 256 bytes. */

export const PCI_COMMAND = 0x04
export const PCI_COMMAND_MEMORY = 2
const PCI_STATUS = 0x06
const PCI_STATUS_CAP_LIST = 0x10
const PCI_CAPABILITY_LIST = 0x34

export const PCI_CAP_ID_PM = 0x01
export const PCI_CAP_ID_EXP = 0x10
export const PCI_CAP_ID_AF = 0x13
/** PMCSR, from the start of its capability. */
export const PCI_PM_CTRL = 4

/** Where capabilities begin. */
export const PCI_STD_HEADER_SIZEOF = 0x40
/** More cannot lie in 256 bytes. */
const CAPABILITIES_MAX = 48

export const word = (config: Uint8Array, at: number): number =>
  (config[at] ?? 0) | ((config[at + 1] ?? 0) << 8)

/** Where the capabilities of a function lie, and their ids. */
export function* pciCapabilities(
  config: Uint8Array,
): Generator<{ readonly id: number; readonly at: number }, void> {
  if ((word(config, PCI_STATUS) & PCI_STATUS_CAP_LIST) === 0) return
  let at = (config[PCI_CAPABILITY_LIST] ?? 0) & 0xfc
  for (let hops = 0; at >= PCI_STD_HEADER_SIZEOF && hops < CAPABILITIES_MAX; hops += 1) {
    yield { id: config[at] ?? 0, at }
    at = (config[at + 1] ?? 0) & 0xfc
  }
}
