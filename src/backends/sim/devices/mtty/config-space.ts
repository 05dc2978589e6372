/** The configuration space of an mtty device: 255 bytes, of which a client changes very few. */

import { dataView } from '../../../../abi/layout.ts'
import {
  PCI_BASE_ADDRESS_0,
  PCI_CLASS_REVISION,
  PCI_COMMAND,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_STATUS,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from '../../../../abi/pci.ts'

export const MTTY_CONFIG_SIZE = 0xff
export const MTTY_BAR_SIZE = 8

const VENDOR_AND_DEVICE = 0x3253_4348
const BAR_LAST = PCI_BASE_ADDRESS_0 + 4 * 4
const ALL_ONES = 0xffff_ffff

export class MttyConfigSpace {
  /** One byte more, so that an access of 4 at the end finds room. */
  readonly #bytes = new Uint8Array(MTTY_CONFIG_SIZE + 1)
  readonly #ports: number

  constructor(ports: number) {
    this.#ports = ports
    const view = dataView(this.#bytes)
    view.setUint32(PCI_VENDOR_ID, VENDOR_AND_DEVICE, true)
    view.setUint16(PCI_COMMAND, 1, true)
    view.setUint16(PCI_STATUS, 0x0200, true)
    view.setUint32(PCI_CLASS_REVISION, 0x0700_0210, true)
    for (let bar = 0; bar < ports; bar++) view.setUint32(PCI_BASE_ADDRESS_0 + 4 * bar, 1, true)
    view.setUint32(PCI_SUBSYSTEM_VENDOR_ID, VENDOR_AND_DEVICE, true)
    view.setUint8(PCI_INTERRUPT_PIN, 1)
    this.#bytes.set([0x23, 0, 0, 0x80, 0x23, 0, 0, 0, 0x23, 0, 0, 0, 0x23], 0x40)
    this.#bytes.set(new TextEncoder().encode('PCI Serial/UART'), 0x60)
  }

  read(offset: number, into: Uint8Array): void {
    into.set(this.#bytes.subarray(offset, offset + into.length))
  }

  write(offset: number, from: Uint8Array): void {
    if (offset === PCI_INTERRUPT_LINE) this.#bytes[offset] = from[0] ?? 0
    if (offset >= PCI_BASE_ADDRESS_0 && offset <= BAR_LAST && from.length === 4)
      this.#writeBar(offset, dataView(from).getUint32(0, true))
  }

  /** Only all ones, which asks for the size, loses the bits that the BAR has no address in. */
  #writeBar(offset: number, value: number): void {
    const view = dataView(this.#bytes)
    const bar = (offset - PCI_BASE_ADDRESS_0) / 4
    const kept = view.getUint32(offset, true) & 3
    const address = value === ALL_ONES ? value & ~(MTTY_BAR_SIZE - 1) : value
    view.setUint32(offset, bar < this.#ports ? (address | kept) >>> 0 : 0, true)
  }
}
