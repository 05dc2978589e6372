/**
 * What a write to the configuration space of a PCI function does to its decoding: vfio-pci takes its
 * regions from processors then, and nothing takes them from the IOMMU (vfio_pci_config.c:
 * vfio_basic_config_write(), vfio_pm_config_write(), vfio_exp_config_write(), vfio_af_config_write()).
 */

import {
  PCI_CAP_ID_AF,
  PCI_CAP_ID_EXP,
  PCI_CAP_ID_PM,
  PCI_COMMAND,
  PCI_COMMAND_MEMORY,
  PCI_PM_CTRL,
  PCI_STD_HEADER_SIZEOF,
  pciCapabilities,
} from './causes/pci-config.ts'

/** pci_regs.h, from the start of a capability. */
const PCI_PM_CTRL_STATE_MASK = 3
const PCI_EXP_DEVCAP_HIGH = 7
const PCI_EXP_DEVCAP_FLR = 0x10
const PCI_EXP_DEVCTL_HIGH = 9
const PCI_EXP_DEVCTL_BCR_FLR = 0x80
const PCI_AF_CAP = 3
const PCI_AF_CAP_TP_AND_FLR = 3
const PCI_AF_CTRL = 4
const PCI_AF_CTRL_FLR = 1

/**
 * Why the function stops decoding its memory by the write, to follow "because"; undefined where it does not.
 *
 * @param config the first 256 bytes as they are; undefined where they cannot be read
 */
export function decodingEnd(
  config: Uint8Array | undefined,
  { offset, data }: { readonly offset: number; readonly data: Uint8Array },
): string | undefined {
  /** What the write puts at a place; undefined where it does not reach it. */
  const written = (at: number): number | undefined => data[at - offset]
  const command = written(PCI_COMMAND)
  if (command !== undefined && (command & PCI_COMMAND_MEMORY) === 0) return DECODING_OFF
  if (config === undefined) return offset < PCI_STD_HEADER_SIZEOF ? undefined : UNKNOWN
  for (const { id, at } of pciCapabilities(config)) {
    if (id === PCI_CAP_ID_PM) {
      if (((written(at + PCI_PM_CTRL) ?? 0) & PCI_PM_CTRL_STATE_MASK) !== 0) return ASLEEP
    } else if (id === PCI_CAP_ID_EXP) {
      const can = ((config[at + PCI_EXP_DEVCAP_HIGH] ?? 0) & PCI_EXP_DEVCAP_FLR) !== 0
      const asks = ((written(at + PCI_EXP_DEVCTL_HIGH) ?? 0) & PCI_EXP_DEVCTL_BCR_FLR) !== 0
      if (can && asks) return RESET
    } else if (id === PCI_CAP_ID_AF) {
      const has = (config[at + PCI_AF_CAP] ?? 0) & PCI_AF_CAP_TP_AND_FLR
      const asks = ((written(at + PCI_AF_CTRL) ?? 0) & PCI_AF_CTRL_FLR) !== 0
      if (has === PCI_AF_CAP_TP_AND_FLR && asks) return RESET
    }
  }
  return undefined
}

const DECODING_OFF = 'a write to its COMMAND register switches memory decoding off'
const ASLEEP = 'a write to its PMCSR changes its power state'
const RESET = 'a write to its configuration space resets it'
const UNKNOWN = 'a write to its configuration space may reset it'
