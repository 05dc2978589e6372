/**
 * A set of pages of an address space, as bits: the written pages that are not reported yet. A chunk is
 * made when a bit in it is set, so a set costs at most a bit per page, and little when pages are few.
 */

import { type Iova, type IovaRange, iova } from '../base/units.ts'

/** A bit per page, the lowest bit of the first byte first; vfio.h: struct vfio_bitmap. */
export interface PageBitmap {
  /** Of the page that the first bit stands for. */
  readonly iova: Iova
  readonly bytes: Uint8Array
}

/** A bitmap, and how many of its pages are in the set. */
export interface CountedBitmap extends PageBitmap {
  readonly count: number
}

/** Bits of one chunk: from the first one to before the last one. */
interface Span {
  readonly chunk: number
  readonly from: number
  readonly to: number
}

const CHUNK_BYTES = 4096
const CHUNK_BITS = CHUNK_BYTES * 8

export class DirtyPages {
  /** Bytes; a power of two. */
  readonly pageSize: bigint
  /** By number: chunk n has the pages from n * CHUNK_BITS on. Numbers of pages are below 2^53. */
  readonly #chunks = new Map<number, Uint8Array>()

  constructor(pageSize: bigint) {
    this.pageSize = pageSize
  }

  /** How many pages are in the set. */
  get count(): number {
    let count = 0
    for (const bytes of this.#chunks.values()) count += weightOf(wordsOf(bytes))
    return count
  }

  /** Add every page of a range, which starts and ends with pages. */
  mark(range: IovaRange): void {
    for (const span of this.#spans(range)) {
      const bytes = this.#made(span.chunk)
      for (let at = span.from >> 3; at << 3 < span.to; at++) {
        bytes[at] = (bytes[at] as number) | maskAt(span, at)
      }
    }
  }

  /** Add the pages of a range whose bits are set in a bitmap, which has all of it and perhaps more. */
  add(range: IovaRange, bitmap: PageBitmap): void {
    const base = this.#page(bitmap.iova)
    for (const span of this.#spans(range)) {
      const ahead = span.chunk * CHUNK_BITS - base
      const words = span.to - span.from === CHUNK_BITS ? chunkAt(bitmap.bytes, ahead) : undefined
      if (words !== undefined) {
        if (!isZero(words)) merge(this.#made(span.chunk), words)
        continue
      }
      let bytes = this.#chunks.get(span.chunk)
      for (let at = span.from >> 3; at << 3 < span.to; at++) {
        const found = byteAt(bitmap.bytes, ahead + at * 8) & maskAt(span, at)
        if (found === 0) continue
        bytes ??= this.#made(span.chunk)
        bytes[at] = (bytes[at] as number) | found
      }
    }
  }

  /** Add every page of another set of the same page size. */
  merge(other: DirtyPages): void {
    for (const [chunk, from] of other.#chunks) merge(this.#made(chunk), wordsOf(from))
  }

  /** Remove the pages of a range; answers those that were there. */
  take(range: IovaRange): DirtyPages {
    const taken = new DirtyPages(this.pageSize)
    for (const { span, bytes } of this.#present(range)) {
      if (span.to - span.from === CHUNK_BITS) {
        taken.#chunks.set(span.chunk, bytes)
        this.#chunks.delete(span.chunk)
        continue
      }
      const into = taken.#made(span.chunk)
      for (let at = span.from >> 3; at << 3 < span.to; at++) {
        const byte = bytes[at] as number
        const mask = maskAt(span, at)
        into[at] = byte & mask
        bytes[at] = byte & ~mask
      }
    }
    return taken
  }

  /** Bitmaps of at most 4 KiB, ascending, without zero bytes at either end. They are not copied. */
  *bitmaps(): Generator<CountedBitmap, void> {
    for (const [chunk, bytes] of this.#ascending()) {
      const first = bytes.findIndex((byte) => byte !== 0)
      if (first < 0) continue
      const last = bytes.findLastIndex((byte) => byte !== 0)
      const page = chunk * CHUNK_BITS + first * 8
      const count = weightOf(wordsOf(bytes))
      yield { iova: this.#iova(page), bytes: bytes.subarray(first, last + 1), count }
    }
  }

  /** Ranges of neighbouring pages, ascending; no two touch. */
  *ranges(): Generator<IovaRange, void> {
    /** The pages from `start` to before `next` are in the set. */
    let start = 0
    let next = 0
    for (const [chunk, bytes] of this.#ascending()) {
      for (let at = 0; at < CHUNK_BYTES; at++) {
        const byte = bytes[at] as number
        const page = chunk * CHUNK_BITS + at * 8
        if (byte === 0xff && next === page && start < next) {
          next += 8
          continue
        }
        for (let bit = 0; byte >> bit !== 0; bit++) {
          if (((byte >> bit) & 1) === 0) continue
          if (page + bit !== next || start === next) {
            if (start < next) yield this.#rangeOf(start, next)
            start = page + bit
          }
          next = page + bit + 1
        }
      }
    }
    if (start < next) yield this.#rangeOf(start, next)
  }

  #ascending(): [number, Uint8Array][] {
    return [...this.#chunks].sort(([a], [b]) => a - b)
  }

  #made(chunk: number): Uint8Array {
    const known = this.#chunks.get(chunk)
    if (known !== undefined) return known
    const made = new Uint8Array(CHUNK_BYTES)
    this.#chunks.set(chunk, made)
    return made
  }

  #page(address: bigint): number {
    return Number(address / this.pageSize)
  }

  #iova(page: number): Iova {
    return iova(BigInt(page) * this.pageSize)
  }

  #rangeOf(start: number, next: number): IovaRange {
    return { start: this.#iova(start), last: iova(this.#iova(next) - 1n) }
  }

  /** The part of a range that lies in each chunk. */
  *#spans(range: IovaRange): Generator<Span, void> {
    const page = this.#page(range.start)
    const end = this.#page(range.last) + 1
    for (let chunk = Math.floor(page / CHUNK_BITS); chunk * CHUNK_BITS < end; chunk++)
      yield spanOf(chunk, page, end)
  }

  /** The same of the chunks that there are; the range may be everything, and they may be many. */
  *#present(range: IovaRange): Generator<{ span: Span; bytes: Uint8Array }, void> {
    const page = this.#page(range.start)
    const end = this.#page(range.last) + 1
    const isWide = (end - page) / CHUNK_BITS > this.#chunks.size
    const spans = isWide
      ? [...this.#chunks.keys()].map((chunk) => spanOf(chunk, page, end))
      : this.#spans(range)
    for (const span of spans) {
      const bytes = this.#chunks.get(span.chunk)
      if (bytes !== undefined && span.from < span.to) yield { span, bytes }
    }
  }
}

/** The bits of a chunk that stand for pages from `page` to before `end`; none where from >= to. */
const spanOf = (chunk: number, page: number, end: number): Span => ({
  chunk,
  from: Math.max(page - chunk * CHUNK_BITS, 0),
  to: Math.min(end - chunk * CHUNK_BITS, CHUNK_BITS),
})

/** The bits of one byte that belong to a span which touches it. */
const maskAt = ({ from, to }: Span, at: number): number =>
  (0xff << Math.max(from - at * 8, 0)) & (0xff >> Math.max(at * 8 + 8 - to, 0))

/** Eight bits of a bitmap from any bit on, which may lie before its first; zeros outside. */
function byteAt(bytes: Uint8Array, bit: number): number {
  const index = Math.floor(bit / 8)
  const pair = (bytes[index] ?? 0) | ((bytes[index + 1] ?? 0) << 8)
  return (pair >> (bit - index * 8)) & 0xff
}

/** The words of a chunk inside a bitmap, from a bit on, where they lie as words do. */
function chunkAt({ buffer, byteOffset }: Uint8Array, bit: number): Uint32Array | undefined {
  const at = byteOffset + bit / 8
  return at % 4 === 0 ? new Uint32Array(buffer, at, CHUNK_BYTES / 4) : undefined
}

function isZero(words: Uint32Array): boolean {
  for (let at = 0; at < words.length; at++) if (words[at] !== 0) return false
  return true
}

function merge(chunk: Uint8Array, words: Uint32Array): void {
  const into = wordsOf(chunk)
  for (let at = 0; at < words.length; at++) {
    into[at] = (into[at] as number) | (words[at] as number)
  }
}

const wordsOf = (chunk: Uint8Array): Uint32Array =>
  new Uint32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4)

/** How many bits are set: in each word pairs are added, then fours, then eights. */
function weightOf(words: Uint32Array): number {
  let weight = 0
  for (let at = 0; at < words.length; at++) {
    const word = words[at] as number
    const pairs = word - ((word >>> 1) & 0x5555_5555)
    const fours = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333)
    const eights = (fours + (fours >>> 4)) & 0x0f0f_0f0f
    weight += Math.imul(eights, 0x0101_0101) >>> 24
  }
  return weight
}
