/**
 * The memory that a side's sequences point into, with nothing on either side of each piece, so
 * that what reaches beyond it fails on a real kernel as well.
 */

import { sys } from '../../src/os/libc.ts'
import { allocPages, freeSegment, mapFd, memfdCreate, type Segment } from '../../src/os/memory.ts'

export const PAGE = 4096
export const LARGE_PAGE = 0x20_0000
const PROT_NONE = 0
const PRIVATE_ANONYMOUS = 0x22
const FIXED_NOREPLACE = 0x10_0000

/** ram to be mapped for DMA, ro of a memfd without PROT_WRITE, bits for bitmaps and ranges. */
export const AREAS = ['ram', 'ro', 'bits', 'edge', 'hole'] as const
export type AreaName = Exclude<(typeof AREAS)[number], 'hole'>

export const RAM_PAGES = 48
export const RO_PAGES = 4
const BITS_PAGES = 3
const HOLE_PAGES = 16

/** How much there is of what memory is behind. */
export const AREA_PAGES = { ram: RAM_PAGES, bits: BITS_PAGES, edge: 1, ro: RO_PAGES } as const

const reserve = (pages: number): number => {
  const at = sys.mmapSync(0, pages * PAGE, PROT_NONE, PRIVATE_ANONYMOUS, -1, 0n)
  if (at < 0) throw new Error(`Cannot reserve addresses: errno ${-at}`)
  return at
}

/** Addresses that nothing is at or around, from where a large page would begin. */
const reserveHole = (): number =>
  Math.ceil(reserve(LARGE_PAGE / PAGE + HOLE_PAGES) / LARGE_PAGE) * LARGE_PAGE

/** Whether nothing is, and nothing can come, at this address. */
const guard = (at: number): boolean =>
  sys.mmapSync(at, PAGE, PROT_NONE, PRIVATE_ANONYMOUS | FIXED_NOREPLACE, -1, 0n) === at

/**
 * Fills every gap that is too small for a segment and what is before it, so that new mappings land
 * below each other.
 */
const plugGaps = (): void => {
  const most = LARGE_PAGE / PAGE + RAM_PAGES + 2
  const below = reserve(most)
  for (let pages = most; pages >= 1; pages = Math.floor(pages / 2)) {
    let at = reserve(pages)
    while (at > below) at = reserve(pages)
    sys.munmapSync(at, pages * PAGE)
  }
}

/**
 * Makes segments until one has room for a guard on either side and begins where a large page does,
 * for iommufd chooses iovas by how addresses are aligned. A new mapping lands below the last one.
 */
const guarded = async (pages: number, make: () => Promise<Segment>): Promise<Segment> => {
  for (let attempt = 0; attempt < 200; attempt++) {
    plugGaps()
    const below = reserve(1) - pages * PAGE
    const above = below % LARGE_PAGE === 0 ? below : reserve((below % LARGE_PAGE) / PAGE)
    const made = await make()
    const start = Number(made.address)
    const isAligned = start % LARGE_PAGE === 0 && above >= start
    const end = start + made.length
    // What lies above is reserved already, or must be.
    if (isAligned && (end === above || end === above + pages * PAGE || guard(end)))
      if (guard(start - PAGE)) return made
  }
  throw new Error('Cannot place memory between two guards')
}

export class Memory {
  readonly #segments: ReadonlyMap<AreaName, Segment>
  readonly #hole: number
  /** That of the other process: `other+0x1000` is an address of its ram. */
  other: Memory | undefined

  private constructor(segments: ReadonlyMap<AreaName, Segment>, hole: number) {
    this.#segments = segments
    this.#hole = hole
    this.reset()
  }

  static async make(): Promise<Memory> {
    const plain = async (pages: number): Promise<Segment> => allocPages(pages * PAGE)
    const readOnly = async (): Promise<Segment> => {
      const fd = memfdCreate('ro', BigInt(RO_PAGES * PAGE))
      sys.writeSync(fd, new Uint8Array(RO_PAGES * PAGE).fill(7))
      const made = await mapFd(fd, {
        offset: 0n,
        length: BigInt(RO_PAGES * PAGE),
        access: 'read',
      })
      sys.closeSync(fd)
      if (typeof made === 'number') throw new Error(`Cannot map a memfd: errno ${-made}`)
      // Pages that were never touched are pinned, and counted, in another way.
      for (let page = 0; page < RO_PAGES; page++) void made.bytes[page * PAGE]
      return made
    }
    const segments = new Map<AreaName, Segment>([
      ['ram', await guarded(RAM_PAGES, () => plain(RAM_PAGES))],
      ['bits', await guarded(BITS_PAGES, () => plain(BITS_PAGES))],
      ['edge', await guarded(1, () => plain(1))],
      ['ro', await guarded(RO_PAGES, readOnly)],
    ])
    return new Memory(segments, reserveHole())
  }

  /** Segments that lie as they should already, and an address with nothing at or around it. */
  static over(segments: ReadonlyMap<AreaName, Segment>, hole: number): Memory {
    return new Memory(segments, hole)
  }

  get segments(): readonly Segment[] {
    return [...this.#segments.values()]
  }

  free(): void {
    for (const segment of this.#segments.values()) freeSegment(segment)
  }

  /** Every page has bytes of its own. */
  reset(): void {
    this.of('bits').bytes.fill(0)
    const ram = this.of('ram').bytes
    for (let page = 0; page < RAM_PAGES; page++) ram.fill(page + 1, page * PAGE, (page + 1) * PAGE)
  }

  of(area: AreaName): Segment {
    const segment = this.#segments.get(area)
    if (!segment) throw new Error(`no memory behind ${area}`)
    return segment
  }

  /** `ram+0x1000` */
  address(text: string): bigint {
    const [area = '', offset = '0'] = text.split('+')
    return this.#startOf(area) + BigInt(offset)
  }

  #startOf(area: string): bigint {
    if (area === 'hole') return BigInt(this.#hole)
    if (area !== 'other') return this.of(area as AreaName).address
    if (this.other === undefined) throw new Error('no other process has memory')
    return this.other.of('ram').address
  }

  bytes(text: string, length: number): Uint8Array {
    const [area = '', offset = '0'] = text.split('+')
    return this.of(area as AreaName).view(Number(offset), length)
  }

  /** The address of the last `length` bytes before nothing. */
  edge(length: number): number {
    return Number(this.of('edge').address) + PAGE - length
  }
}
