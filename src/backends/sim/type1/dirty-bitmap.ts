/**
 * The dirty bits of one mapping, in whole 64-bit words as the kernel keeps them. A report shifts
 * them in place to where they lie in the caller's bitmap and clears only as many bits as there
 * are pages, and none where it fails, so bits can stay behind and turn up in a later report: vfiod
 * must never trust a bit outside its own mappings, and this shows it why.
 */

const WORD_BITS = 64
const wordsFor = (bits: number): number => Math.ceil(bits / WORD_BITS)
const lowBits = (count: number): bigint => (1n << BigInt(count)) - 1n

export class DirtyBitmap {
  readonly #pages: number
  /** One word more than the pages need: room for the shift. */
  readonly #words: BigUint64Array

  constructor(pages: number) {
    this.#pages = pages
    this.#words = new BigUint64Array(wordsFor(pages) + 1)
  }

  setAll(): void {
    this.#fill(true)
  }

  clear(): void {
    this.#fill(false)
  }

  /** From one page to another one. */
  set(first: number, last: number): void {
    for (let page = first; page <= last; page++) {
      const at = Math.floor(page / WORD_BITS)
      this.#words[at] = this.#word(at) | (1n << BigInt(page % WORD_BITS))
    }
  }

  /** Moves the bits up by `shift`, 1 to 63; they stay there until `clear`, reported or not. */
  moveUp(shift: number): void {
    for (let at = wordsFor(this.#pages + shift) - 1; at >= 0; at--) {
      const below = at > 0 ? this.#word(at - 1) >> BigInt(WORD_BITS - shift) : 0n
      this.#words[at] = (this.#word(at) << BigInt(shift)) | below
    }
  }

  /** Merges the caller's word into the first one. */
  mergeFirst(word: bigint): void {
    this.#words[0] = this.#word(0) | word
  }

  /** What is stored of bits that were moved up by `shift`. */
  words(shift: number): BigUint64Array {
    return this.#words.subarray(0, wordsFor(this.#pages + shift))
  }

  #word(at: number): bigint {
    return this.#words[at] ?? 0n
  }

  #fill(isSet: boolean): void {
    const whole = Math.floor(this.#pages / WORD_BITS)
    // Byte by byte is many times as fast as word by word.
    new Uint8Array(this.#words.buffer, 0, whole * 8).fill(isSet ? 0xff : 0)
    const mask = lowBits(this.#pages % WORD_BITS)
    if (mask === 0n) return
    const last = this.#word(whole)
    this.#words[whole] = isSet ? last | mask : last & ~mask
  }
}
