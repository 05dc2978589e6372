/**
 * A mediated device whose driver pins the pages that its client names, as vfio-ccw does for a
 * channel program (drivers/s390/cio/vfio_ccw_cp.c): it lets go of them when the client says so,
 * when some of them are unmapped, at a reset and when it is closed. BAR 0 has its registers, of 8
 * bytes each; docs/machine-file.md describes them.
 */

import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_NUM_REGIONS,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_region_info,
} from '../../../abi/device.ts'
import { dataView } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { overlaps, type Range } from '../../../rules/range-map.ts'
import { copyIn, copyOut } from '../core/user-memory.ts'
import type { Caller } from '../file/open-file.ts'
import { isPinnableCount, type PinRequest } from '../iommu/emulated-dma.ts'
import { VfioDevice } from '../vfio/vfio-device.ts'

const INFO_MIN = vfio_device_info.offsets.cap_offset
const BAR_SIZE = 0x2000n
/** Where BAR 0 has the bytes that are read or written. */
export const PINNING_WINDOW = 0x1000
const WINDOW_BYTES = 4096
const REGISTER_BYTES = 8

/** Registers by their place in BAR 0. */
export const PINNING_REG = {
  id: 0x00,
  iova: 0x08,
  pages: 0x10,
  command: 0x18,
  answer: 0x20,
  length: 0x28,
  pins: 0x30,
  unmaps: 0x38,
} as const
export const PINNING_ID = 0x70696e73n
export const PINNING_COMMAND = {
  pinToRead: 1n,
  pinToWrite: 2n,
  unpin: 3n,
  read: 4n,
  write: 5n,
} as const

const REGISTERS = Object.values(PINNING_REG).length

const last = ({ iova, pages }: PinRequest): bigint => iova + BigInt(pages) * PAGE_SIZE - 1n

export class PinningDevice extends VfioDevice {
  /** Indexed by place / 8. */
  readonly #registers = new BigUint64Array(REGISTERS)
  readonly #window = new Uint8Array(WINDOW_BYTES)
  #pins: PinRequest[] = []

  protected override openDevice(): number {
    this.#registers.fill(0n)
    return 0
  }

  protected override closeDevice(): void {
    this.#unpinAll()
  }

  override unmapped(range: Range<bigint>): void {
    const at = PINNING_REG.unmaps / REGISTER_BYTES
    this.#registers[at] = this.#get(PINNING_REG.unmaps) + 1n
    this.#unpinWhere((pin) => overlaps(range, { start: pin.iova, last: last(pin) }))
  }

  override ioctl(_caller: Caller, request: number, arg: IoctlArg): number {
    switch (request) {
      case VFIO_DEVICE_GET_INFO.number:
        return deviceInfo(arg)
      case VFIO_DEVICE_GET_REGION_INFO.number:
        return regionInfo(arg)
      case VFIO_DEVICE_RESET.number:
        this.#unpinAll()
        return 0
      default:
        return -ERRNO.ENOTTY
    }
  }

  override read(into: Uint8Array, offset: bigint): number {
    const window = this.#windowAt(offset, into.length)
    if (window) {
      into.set(window)
      return into.length
    }
    if (!isRegister(offset, into.length)) return -ERRNO.EINVAL
    this.#registers[PINNING_REG.id / REGISTER_BYTES] = PINNING_ID
    this.#registers[PINNING_REG.pins / REGISTER_BYTES] = BigInt(this.#pins.length)
    dataView(into).setBigUint64(0, this.#get(Number(offset)), true)
    return into.length
  }

  override write(from: Uint8Array, offset: bigint): number {
    const window = this.#windowAt(offset, from.length)
    if (window) {
      window.set(from)
      return from.length
    }
    if (!isRegister(offset, from.length)) return -ERRNO.EINVAL
    const value = dataView(from).getBigUint64(0, true)
    this.#registers[Number(offset) / REGISTER_BYTES] = value
    if (Number(offset) === PINNING_REG.command)
      this.#registers[PINNING_REG.answer / REGISTER_BYTES] = BigInt.asUintN(
        64,
        BigInt(this.#execute(value)),
      )
    return from.length
  }

  #windowAt(offset: bigint, length: number): Uint8Array | undefined {
    const at = Number(offset) - PINNING_WINDOW
    return at >= 0 && at + length <= WINDOW_BYTES
      ? this.#window.subarray(at, at + length)
      : undefined
  }

  #get(at: number): bigint {
    return this.#registers[at / REGISTER_BYTES] ?? 0n
  }

  #execute(command: bigint): number {
    const request = {
      iova: this.#get(PINNING_REG.iova),
      pages: Number(this.#get(PINNING_REG.pages)),
      isWritten: command === PINNING_COMMAND.pinToWrite,
    }
    switch (command) {
      case PINNING_COMMAND.pinToRead:
      case PINNING_COMMAND.pinToWrite:
        return this.#pin(request)
      case PINNING_COMMAND.unpin:
        return this.#unpin(request)
      case PINNING_COMMAND.read:
        return this.#transfer(request.iova, 'read')
      case PINNING_COMMAND.write:
        return this.#transfer(request.iova, 'write')
      default:
        return -ERRNO.EINVAL
    }
  }

  /** vfio_pin_pages(): whole pages, so where in the first one the iova is does not count. */
  #pin(request: PinRequest): number {
    const dma = this.emulatedDma
    if (dma === undefined || !isPinnableCount(request.pages)) return -ERRNO.EINVAL
    const whole = { ...request, iova: request.iova - (request.iova % PAGE_SIZE) }
    const pinned = dma.pin(whole)
    if (pinned === 0) this.#pins.push(whole)
    return pinned
  }

  #unpin({ iova, pages }: PinRequest): number {
    const first = this.#pins.find((pin) => pin.iova === iova && pin.pages === pages)
    if (first === undefined) return -ERRNO.ENOENT
    this.#unpinWhere((pin) => pin === first)
    return 0
  }

  #unpinAll(): void {
    this.#unpinWhere(() => true)
  }

  #unpinWhere(isMeant: (pin: PinRequest) => boolean): void {
    const gone = this.#pins.filter(isMeant)
    this.#pins = this.#pins.filter((pin) => !gone.includes(pin))
    for (const pin of gone) this.emulatedDma?.unpin(pin)
  }

  #transfer(iova: bigint, access: 'read' | 'write'): number {
    const length = this.#get(PINNING_REG.length)
    if (length > BigInt(WINDOW_BYTES)) return -ERRNO.EINVAL
    const bytes = this.#window.subarray(0, Number(length))
    return this.emulatedDma?.transfer(iova, bytes, access) ?? -ERRNO.EINVAL
  }
}

const isRegister = (offset: bigint, length: number): boolean =>
  length === REGISTER_BYTES &&
  offset % BigInt(REGISTER_BYTES) === 0n &&
  offset < BigInt(REGISTERS * REGISTER_BYTES)

const deviceInfo = (arg: IoctlArg): number => {
  const info = copyIn(vfio_device_info, arg, INFO_MIN)
  if (info === undefined) return -ERRNO.EFAULT
  if (info.argsz < INFO_MIN) return -ERRNO.EINVAL
  const flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET
  const answer = vfio_device_info.encode({ ...info, flags, num_regions: VFIO_PCI_NUM_REGIONS })
  return copyOut(arg, answer, INFO_MIN)
}

const regionInfo = (arg: IoctlArg): number => {
  const info = copyIn(vfio_region_info, arg, vfio_region_info.size)
  if (info === undefined) return -ERRNO.EFAULT
  if (info.argsz < vfio_region_info.size || info.index >= VFIO_PCI_NUM_REGIONS) return -ERRNO.EINVAL
  const hasRegisters = info.index === VFIO_PCI_BAR0_REGION_INDEX
  const flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
  const region = hasRegisters ? { flags, size: BAR_SIZE } : { flags: 0, size: 0n }
  return copyOut(arg, vfio_region_info.encode({ ...info, ...region, offset: 0n }))
}
