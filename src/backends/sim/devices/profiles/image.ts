/**
 * The internal state of a vendor-like device: pages whose bytes follow from a seed, the page and
 * how often it changed. So hundreds of megabytes cost a number per page, and the receiver of a page
 * detects a single wrong bit.
 */

import { PAGE_SIZE } from '../../../../base/units.ts'

export const STATE_PAGE = Number(PAGE_SIZE)
const WORDS = STATE_PAGE / 4

/** What says which bytes a page has. */
export interface PageId {
  /** Whose device it is; no other takes it. */
  readonly make: number
  readonly seed: number
  readonly page: number
  readonly generation: number
}

const words = new Uint32Array(WORDS)
const wordBytes = new Uint8Array(words.buffer)

/** The bytes of a page; they are overwritten by the next call. */
export const pageBytes = ({ seed, page, generation }: Omit<PageId, 'make'>): Uint8Array => {
  let value = Math.imul(seed ^ Math.imul(page + 1, 0x9e37_79b1), 0x85eb_ca6b)
  value = (value ^ Math.imul(generation + 1, 0xc2b2_ae35)) | 1
  for (let at = 0; at < WORDS; at++) {
    value ^= value << 13
    value ^= value >>> 17
    value ^= value << 5
    words[at] = value
  }
  return wordBytes
}

export class StateImage {
  readonly pages: number
  readonly make: number
  readonly #powerOnSeed: number
  seed: number
  /** How often each page has changed. */
  generations: Uint32Array
  /** Called for every page that changes. */
  onChange: (page: number) => void = () => {}
  #next = 0

  constructor(bytes: bigint, { seed, make }: { readonly seed: number; readonly make: number }) {
    this.make = make
    this.pages = Math.max(1, Math.ceil(Number(bytes) / STATE_PAGE))
    this.#powerOnSeed = seed
    this.seed = seed
    this.generations = new Uint32Array(this.pages)
  }

  id(page: number): PageId {
    return { make: this.make, seed: this.seed, page, generation: this.generations[page] ?? 0 }
  }

  /** The device works: so many pages of its state change, one after the other. */
  change(count: number): void {
    for (let done = 0; done < count; done++) {
      const page = this.#next
      this.#next = (page + 1) % this.pages
      this.generations[page] = (this.generations[page] ?? 0) + 1
      this.onChange(page)
    }
  }

  /** A copy that stays as this is now. */
  snapshot(): StateImage {
    const copy = new StateImage(BigInt(this.pages * STATE_PAGE), this)
    copy.generations = this.generations.slice()
    return copy
  }

  load(seed: number, generations: Uint32Array): void {
    this.seed = seed
    this.generations = generations
  }

  reset(): void {
    this.load(this.#powerOnSeed, new Uint32Array(this.pages))
  }
}
