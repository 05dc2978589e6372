/** pci_regs.h: the part of PCI configuration space that vfiod reads or that the sim shows. */

export const PCI_VENDOR_ID = 0x00
export const PCI_DEVICE_ID = 0x02
export const PCI_COMMAND = 0x04
export const PCI_STATUS = 0x06
export const PCI_CLASS_REVISION = 0x08
export const PCI_CLASS_DEVICE = 0x0a
export const PCI_HEADER_TYPE = 0x0e
export const PCI_BASE_ADDRESS_0 = 0x10
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c
export const PCI_SUBSYSTEM_ID = 0x2e
export const PCI_CAPABILITY_LIST = 0x34
export const PCI_INTERRUPT_LINE = 0x3c
export const PCI_INTERRUPT_PIN = 0x3d

export const PCI_COMMAND_IO = 1
export const PCI_COMMAND_MEMORY = 2
export const PCI_COMMAND_MASTER = 4
export const PCI_COMMAND_INTX_DISABLE = 0x400

/** PCI_CAPABILITY_LIST counts only with this bit of PCI_STATUS. */
export const PCI_STATUS_CAP_LIST = 0x10

/** The rest of PCI_HEADER_TYPE is the multi-function bit. */
export const PCI_HEADER_TYPE_MASK = 0x7f
export const PCI_HEADER_TYPE_NORMAL = 0

/** Offsets in every capability; a next of 0 ends the list. */
export const PCI_CAP_LIST_ID = 0
export const PCI_CAP_LIST_NEXT = 1

export const PCI_CAP_ID_MSI = 0x05
export const PCI_CAP_ID_EXP = 0x10
export const PCI_CAP_ID_MSIX = 0x11
