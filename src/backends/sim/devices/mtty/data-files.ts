/** The two data_fds of mtty: a header, then one struct per port, as they lie in memory. */

import { struct } from '../../../../abi/layout.ts'
import { VFIO_MIG_GET_PRECOPY_INFO, vfio_precopy_info } from '../../../../abi/mig-v2.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg } from '../../../../kernel/port.ts'
import { copyIn, copyOut } from '../../core/user-memory.ts'
import type { Caller } from '../../file/open-file.ts'
import { DataFile } from '../../vfio/data-file.ts'
import { PORT_SIZE } from './uart.ts'

const HEADER = struct('mtty_data', {
  magic: 'u64',
  major_ver: 'u32',
  minor_ver: 'u32',
  nr_ports: 'u32',
  flags: 'u32',
})
const MAGIC = 0x7e9d_0989_8c3e_2c4en

export const dataSizeOf = (ports: number): number => HEADER.size + ports * PORT_SIZE

const headerOf = (ports: number): Uint8Array =>
  HEADER.encode({ magic: MAGIC, major_ver: 1, minor_ver: 0, nr_ports: ports, flags: 0 })

export class MttySavingFile extends DataFile {
  readonly #isPreCopy: () => boolean
  #data: Uint8Array
  #position = 0

  constructor(ports: number, isPreCopy: () => boolean) {
    super()
    this.#isPreCopy = isPreCopy
    this.#data = headerOf(ports)
  }

  /** The device has stopped: the rest of the stream follows. */
  append(ports: readonly Uint8Array[]): void {
    this.#data = Buffer.concat([this.#data, ...ports])
  }

  override read(into: Uint8Array): number {
    if (this.isOrphan) return -ERRNO.ENODEV
    const piece = this.#data.subarray(this.#position, this.#position + into.length)
    into.set(piece)
    this.#position += piece.length
    return piece.length
  }

  override ioctl(_caller: Caller, request: number, arg: IoctlArg): number {
    if (request !== VFIO_MIG_GET_PRECOPY_INFO.number) return -ERRNO.ENOTTY
    const info = copyIn(vfio_precopy_info, arg, vfio_precopy_info.size)
    if (info === undefined) return -ERRNO.EFAULT
    if (info.argsz < vfio_precopy_info.size) return -ERRNO.EINVAL
    if (!this.#isPreCopy()) return -ERRNO.EINVAL
    if (this.isOrphan) return -ERRNO.ENODEV
    const initial_bytes = BigInt(this.#data.length - this.#position)
    return copyOut(arg, vfio_precopy_info.encode({ ...info, initial_bytes, dirty_bytes: 0n }))
  }
}

export class MttyResumingFile extends DataFile {
  readonly #ports: number
  readonly #data: Uint8Array
  #position = 0

  constructor(ports: number) {
    super()
    this.#ports = ports
    this.#data = new Uint8Array(dataSizeOf(ports))
  }

  override write(from: Uint8Array): number {
    // Ending the session put the position back to the start.
    const position = this.isOrphan ? 0 : this.#position
    if (position + from.length > this.#data.length) return -ERRNO.ENOMEM
    if (this.isOrphan) return -ERRNO.ENODEV
    const before = this.#position
    this.#data.set(from, before)
    this.#position += from.length
    const completesHeader = before < HEADER.size && this.#position >= HEADER.size
    // The bytes stay where they are, and later writes go on behind them.
    return completesHeader && !this.#hasRightHeader ? -ERRNO.EFAULT : from.length
  }

  /** The ports' structs, once all of the stream is there; the header is not looked at again. */
  loaded(): Uint8Array[] | undefined {
    if (this.#position < this.#data.length) return undefined
    return Array.from({ length: this.#ports }, (_, port) => {
      const at = HEADER.size + port * PORT_SIZE
      return this.#data.slice(at, at + PORT_SIZE)
    })
  }

  get #hasRightHeader(): boolean {
    return Buffer.from(headerOf(this.#ports)).equals(this.#data.subarray(0, HEADER.size))
  }
}
