/**
 * A map from ranges of addresses to values, for a million of them: sorted chunks, so that finding
 * costs two binary searches and inserting moves one chunk. Both ends of a range are inside.
 */

import type { Iova } from '../base/units.ts'

export interface Range<Address extends bigint = Iova> {
  readonly start: Address
  readonly last: Address
}

export interface RangeEntry<Value, Address extends bigint = Iova> extends Range<Address> {
  readonly value: Value
}

export const overlaps = (a: Range<bigint>, b: Range<bigint>): boolean =>
  a.start <= b.last && b.start <= a.last

export const contains = (outer: Range<bigint>, inner: Range<bigint>): boolean =>
  outer.start <= inner.start && inner.last <= outer.last

/** A chunk that grows past this is split in two. */
const CHUNK_MAX = 512

type Chunk<Value, Address extends bigint> = RangeEntry<Value, Address>[]

/** The index of the first of `sorted` for which `isPast` holds; it must stay true from there on. */
const firstIndex = <T>(sorted: readonly T[], isPast: (item: T) => boolean): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (isPast(sorted[middle] as T)) high = middle
    else low = middle + 1
  }
  return low
}

export class RangeMap<Value, Address extends bigint = Iova> {
  /** Invariant: no chunk is empty; entries ascend within and across chunks; no two overlap. */
  readonly #chunks: Chunk<Value, Address>[] = []
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The entry that has this address inside. */
  find(address: Address): RangeEntry<Value, Address> | undefined {
    const entry = this.#from(address).next().value
    return entry !== undefined && entry.start <= address ? entry : undefined
  }

  /** The lowest entry that shares an address with the range. */
  firstOverlap(range: Range<Address>): RangeEntry<Value, Address> | undefined {
    const entry = this.#from(range.start).next().value
    return entry !== undefined && entry.start <= range.last ? entry : undefined
  }

  overlaps(range: Range<Address>): boolean {
    return this.firstOverlap(range) !== undefined
  }

  /** The entries that share an address with the range, ascending. Do not change the map meanwhile. */
  *overlapping(range: Range<Address>): Generator<RangeEntry<Value, Address>, undefined> {
    for (const entry of this.#from(range.start)) {
      if (entry.start > range.last) return
      yield entry
    }
  }

  /** The entries that lie wholly inside the range, ascending. Do not change the map meanwhile. */
  *contained(range: Range<Address>): Generator<RangeEntry<Value, Address>, undefined> {
    for (const entry of this.overlapping(range)) if (contains(range, entry)) yield entry
  }

  /** False, and nothing changes, when the range overlaps an entry. */
  insert(range: Range<Address>, value: Value): boolean {
    if (range.start > range.last)
      throw new RangeError('Cannot insert a range that ends before it starts')
    if (this.overlaps(range)) return false
    const entry = { start: range.start, last: range.last, value }
    this.#size += 1

    const above = firstIndex(
      this.#chunks,
      (chunk) => (chunk[0] as typeof entry).start > range.start,
    )
    const at = Math.max(above - 1, 0)
    const chunk = this.#chunks[at]
    if (chunk === undefined) {
      this.#chunks.push([entry])
      return true
    }
    chunk.splice(
      firstIndex(chunk, ({ start }) => start > range.start),
      0,
      entry,
    )
    if (chunk.length > CHUNK_MAX) this.#chunks.splice(at + 1, 0, chunk.splice(CHUNK_MAX / 2))
    return true
  }

  /** Removes the entry that starts at this address; answers it, or undefined when there is none. */
  remove(start: Address): RangeEntry<Value, Address> | undefined {
    const at = this.#chunkOf(start)
    const chunk = this.#chunks[at]
    if (chunk === undefined) return undefined
    const index = firstIndex(chunk, (entry) => entry.last >= start)
    const entry = chunk[index]
    if (entry === undefined || entry.start !== start) return undefined
    chunk.splice(index, 1)
    if (chunk.length === 0) this.#chunks.splice(at, 1)
    this.#size -= 1
    return entry
  }

  clear(): void {
    this.#chunks.length = 0
    this.#size = 0
  }

  /** Every entry, ascending. */
  *[Symbol.iterator](): Generator<RangeEntry<Value, Address>, undefined> {
    for (const chunk of this.#chunks) yield* chunk
  }

  /** The first chunk that has an entry ending at or above the address. */
  #chunkOf(address: Address): number {
    return firstIndex(this.#chunks, (chunk) => (chunk.at(-1) as Range<Address>).last >= address)
  }

  /** The entries that end at or above the address, ascending. */
  *#from(address: Address): Generator<RangeEntry<Value, Address>, undefined> {
    let at = this.#chunkOf(address)
    const first = this.#chunks[at]
    if (first === undefined) return
    for (
      let index = firstIndex(first, ({ last }) => last >= address);
      index < first.length;
      index++
    )
      yield first[index] as RangeEntry<Value, Address>
    for (at += 1; at < this.#chunks.length; at++) yield* this.#chunks[at] as Chunk<Value, Address>
  }
}
