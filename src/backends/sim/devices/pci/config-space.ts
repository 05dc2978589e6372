/**
 * The configuration space of a function as vfio-pci shows it: most of it the device's own, BARs and
 * the MSI registers a copy that the client writes without the device noticing. pci_regs.h.
 */

import { dataView } from '../../../../abi/layout.ts'
import {
  PCI_BASE_ADDRESS_0,
  PCI_CAP_ID_EXP,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CAP_LIST_ID,
  PCI_CAP_LIST_NEXT,
  PCI_CAPABILITY_LIST,
  PCI_CLASS_REVISION,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_HEADER_TYPE,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from '../../../../abi/pci.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { BarSpec, FunctionSpec } from '../../spec/machine-spec.ts'

const PCI_COMMAND_SERR = 0x100
const PCI_CACHE_LINE_SIZE = 0x0c
const CONVENTIONAL_SIZE = 256
const EXPRESS_SIZE = 4096

/** Where capabilities are put, in the order of their ids. */
const CAP_AT = { msi: 0x40, msix: 0x60, express: 0x80 } as const
const MSI_64BIT = 0x80
const MSI_QSIZE = 0x70

const BAR_FLAGS: Record<BarSpec['kind'], bigint> = { memory: 0n, memory64: 4n, io: 1n }

export class ConfigSpace {
  readonly #bytes: Uint8Array
  /** What it was when the function was opened. */
  #saved = new Uint8Array(0)
  /** Which bits a client's write changes. */
  readonly #writable: Uint8Array

  constructor(spec: FunctionSpec) {
    const size = spec.isPcie ? EXPRESS_SIZE : CONVENTIONAL_SIZE
    this.#bytes = new Uint8Array(size)
    this.#writable = new Uint8Array(size)
    this.#header(spec)
    this.#capabilities(spec)
  }

  get size(): number {
    return this.#bytes.length
  }

  get isMemoryEnabled(): boolean {
    return (this.#command & PCI_COMMAND_MEMORY) !== 0
  }

  get isBusMaster(): boolean {
    return (this.#command & PCI_COMMAND_MASTER) !== 0
  }

  get isIntxDisabled(): boolean {
    return (this.#command & PCI_COMMAND_INTX_DISABLE) !== 0
  }

  /** What a kernel driver leaves behind: the device may or may not start transfers. */
  setBusMaster(isOn: boolean): void {
    this.#command = isOn ? this.#command | PCI_COMMAND_MASTER : this.#command & ~PCI_COMMAND_MASTER
  }

  /** vfio-pci opens the function: its resources decode, and it masters no bus until told to. */
  enable({ bars }: FunctionSpec): void {
    let bits = 0
    if (bars.some(({ kind }) => kind === 'io')) bits |= PCI_COMMAND_IO
    if (bars.some(({ kind }) => kind !== 'io')) bits |= PCI_COMMAND_MEMORY
    this.#command = (this.#command & ~(PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)) | bits
    this.#saved = this.#bytes.slice()
  }

  /** vfio-pci closes the function: nothing is left of what its client wrote. */
  restore(): void {
    this.#bytes.set(this.#saved)
  }

  read(offset: number, into: Uint8Array): number {
    if (offset >= this.size || offset + into.length > this.size) return -ERRNO.EFAULT
    into.set(this.#bytes.subarray(offset, offset + into.length))
    return into.length
  }

  write(offset: number, from: Uint8Array): number {
    if (offset >= this.size || offset + from.length > this.size) return -ERRNO.EFAULT
    for (const [index, byte] of from.entries()) {
      const at = offset + index
      const mask = this.#writable[at] ?? 0
      this.#bytes[at] = ((this.#bytes[at] ?? 0) & ~mask) | (byte & mask)
    }
    return from.length
  }

  get #command(): number {
    return dataView(this.#bytes).getUint16(PCI_COMMAND, true)
  }

  set #command(value: number) {
    dataView(this.#bytes).setUint16(PCI_COMMAND, value, true)
  }

  #header(spec: FunctionSpec): void {
    const view = dataView(this.#bytes)
    const writable = dataView(this.#writable)
    view.setUint16(PCI_VENDOR_ID, spec.vendor, true)
    view.setUint16(PCI_DEVICE_ID, spec.device, true)
    view.setUint32(PCI_CLASS_REVISION, ((spec.classCode << 8) | spec.revision) >>> 0, true)
    view.setUint8(PCI_HEADER_TYPE, spec.isBridge ? 1 : 0)
    view.setUint16(PCI_SUBSYSTEM_VENDOR_ID, spec.subsystemVendor, true)
    view.setUint16(PCI_SUBSYSTEM_ID, spec.subsystemDevice, true)
    view.setUint8(PCI_INTERRUPT_PIN, spec.hasIntx ? 1 : 0)
    view.setUint8(PCI_INTERRUPT_LINE, spec.hasIntx ? 0x0a : 0)
    // As the firmware leaves it: decoding, and system errors reported.
    this.#command = PCI_COMMAND_SERR | PCI_COMMAND_IO | PCI_COMMAND_MEMORY
    if (spec.boundDriver !== undefined) this.setBusMaster(true)
    writable.setUint16(
      PCI_COMMAND,
      PCI_COMMAND_IO |
        PCI_COMMAND_MEMORY |
        PCI_COMMAND_MASTER |
        PCI_COMMAND_SERR |
        PCI_COMMAND_INTX_DISABLE,
      true,
    )
    writable.setUint8(PCI_CACHE_LINE_SIZE, 0xff)
    writable.setUint8(PCI_INTERRUPT_LINE, 0xff)
    for (const [index, bar] of spec.bars.entries()) this.#bar(bar, index)
  }

  /** Writing all ones to a BAR and reading it back tells its size: the low bits do not change. */
  #bar({ index, size, kind }: BarSpec, position: number): void {
    const at = PCI_BASE_ADDRESS_0 + 4 * index
    const mask = ~(size - 1n)
    const address = (0xfe00_0000n + BigInt(position) * 0x10_0000n) & mask
    const put = (where: number, from: bigint, into: Uint8Array): void =>
      dataView(into).setUint32(where, Number(from & 0xffff_ffffn), true)
    put(at, (kind === 'io' ? 0xc000n : address) | BAR_FLAGS[kind], this.#bytes)
    put(at, mask & (kind === 'io' ? ~3n : ~15n), this.#writable)
    if (kind === 'memory64') put(at + 4, mask >> 32n, this.#writable)
  }

  #capabilities(spec: FunctionSpec): void {
    const caps: { readonly id: number; readonly at: number; readonly word: number }[] = []
    // The log of the vector count lies in bits 1 to 3.
    const log = Math.ceil(Math.log2(Math.max(spec.msiVectors, 1)))
    if (spec.msiVectors > 0)
      caps.push({ id: PCI_CAP_ID_MSI, at: CAP_AT.msi, word: MSI_64BIT | (log << 1) })
    if (spec.msixVectors > 0)
      caps.push({ id: PCI_CAP_ID_MSIX, at: CAP_AT.msix, word: spec.msixVectors - 1 })
    // Version 2, a root complex integrated endpoint.
    if (spec.isPcie) caps.push({ id: PCI_CAP_ID_EXP, at: CAP_AT.express, word: 0x92 })
    const view = dataView(this.#bytes)
    if (caps.length > 0) view.setUint16(PCI_STATUS, PCI_STATUS_CAP_LIST, true)
    view.setUint8(PCI_CAPABILITY_LIST, caps[0]?.at ?? 0)
    for (const [index, { id, at, word }] of caps.entries()) {
      view.setUint8(at + PCI_CAP_LIST_ID, id)
      view.setUint8(at + PCI_CAP_LIST_NEXT, caps[index + 1]?.at ?? 0)
      view.setUint16(at + 2, word, true)
    }
    if (spec.msiVectors > 0) {
      // The number of vectors wanted, and the address of the message: stored, and not used.
      this.#writable[CAP_AT.msi + 2] = MSI_QSIZE
      this.#writable.fill(0xff, CAP_AT.msi + 4, CAP_AT.msi + 14)
    }
  }
}
