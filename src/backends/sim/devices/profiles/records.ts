/**
 * The stream of a vendor-like device: records of one page each, and one of its registers at the
 * end. A record begins with the size, flags and tag that those of mlx5 begin with.
 */

import { crc32 } from 'node:zlib'
import { struct } from '../../../../abi/layout.ts'
import { ERRNO } from '../../../../base/errno.ts'
import { type PageId, pageBytes, STATE_PAGE, type StateImage } from './image.ts'

const HEADER = struct('vendor_record', {
  record_size: 'u64',
  flags: 'u32',
  tag: 'u32',
  seed: 'u32',
  page: 'u32',
  generation: 'u32',
  pages: 'u32',
})
export const RECORD_SIZE = HEADER.size + STATE_PAGE
const RECORD_BODY = BigInt(RECORD_SIZE - 16)

const TAG_IMAGE = 0
/** The page of the record that has the registers, always the last. */
const REGISTERS = 0xffff_ffff

export const writePageRecord = (into: Uint8Array, id: PageId, pages: number): void => {
  writeHeader(into, id, pages)
  into.set(pageBytes(id), HEADER.size)
}

export const writeRegistersRecord = (
  into: Uint8Array,
  registers: Uint8Array,
  { make, seed, pages }: StateImage,
): void => {
  into.set(registers, HEADER.size)
  const generation = registersSum(into, seed)
  writeHeader(into, { make, seed, page: REGISTERS, generation }, pages)
}

/** What the record of the registers has for a generation: pages follow from a seed, registers do not. */
const registersSum = (record: Uint8Array, seed: number): number =>
  crc32(record.subarray(HEADER.size, RECORD_SIZE), seed)

const writeHeader = (into: Uint8Array, id: PageId, pages: number): void => {
  const { make: flags, seed, page, generation } = id
  const head = { record_size: RECORD_BODY, flags, tag: TAG_IMAGE, seed, page, generation, pages }
  into.set(HEADER.encode(head))
}

/** What a device has received: checked record by record, and loaded only when all of it is there. */
export class ReceivedState {
  readonly #image: StateImage
  readonly #generations: Uint32Array
  readonly #seen: Uint8Array
  readonly #record = Buffer.alloc(RECORD_SIZE)
  #filled = 0
  #missing: number
  #seed = 0
  #registers: Uint8Array | undefined

  constructor(image: StateImage) {
    this.#image = image
    this.#generations = new Uint32Array(image.pages)
    this.#seen = new Uint8Array(image.pages)
    this.#missing = image.pages
  }

  /** Whether nothing may follow. */
  get isFull(): boolean {
    return this.#registers !== undefined
  }

  get isComplete(): boolean {
    return this.#registers !== undefined && this.#missing === 0 && this.#filled === 0
  }

  /** 0, or -errno for the first record that is wrong. */
  take(from: Uint8Array): number {
    for (let done = 0; done < from.length; ) {
      if (this.isFull) return -ERRNO.ENOMEM
      const piece = from.subarray(done, done + RECORD_SIZE - this.#filled)
      const before = this.#filled
      this.#record.set(piece, before)
      this.#filled += piece.length
      done += piece.length
      if (before < HEADER.size && this.#filled >= HEADER.size) {
        const refused = this.#checkHeader()
        if (refused < 0) return refused
      }
      if (this.#filled < RECORD_SIZE) continue
      this.#filled = 0
      const refused = this.#store()
      if (refused < 0) return refused
    }
    return 0
  }

  /** Makes it the state of the device; the registers that came with it. */
  load(): Uint8Array | undefined {
    if (!this.isComplete) return undefined
    this.#image.load(this.#seed, this.#generations)
    return this.#registers
  }

  #checkHeader(): number {
    const { record_size, flags, tag, page, pages } = HEADER.decode(this.#record)
    if (tag !== TAG_IMAGE || flags !== this.#image.make) return -ERRNO.EOPNOTSUPP
    const isPage = page < pages || page === REGISTERS
    return record_size === RECORD_BODY && pages === this.#image.pages && isPage ? 0 : -ERRNO.EINVAL
  }

  #store(): number {
    const { seed, page, generation } = HEADER.decode(this.#record)
    const bytes = this.#record.subarray(HEADER.size)
    if (page === REGISTERS) {
      if (registersSum(this.#record, seed) !== generation) return -ERRNO.EINVAL
      this.#registers = bytes.slice()
      return 0
    }
    if (!bytes.equals(pageBytes({ seed, page, generation }))) return -ERRNO.EINVAL
    this.#seed = seed
    this.#generations[page] = generation
    if (this.#seen[page] === 0) this.#missing -= 1
    this.#seen[page] = 1
    return 0
  }
}
