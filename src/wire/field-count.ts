/**
 * How many fields a message has, told from its bytes before any object is made of them: what a
 * message costs to decode goes by its fields, of which two bytes are enough for one.
 *
 * Bytes that are not a message end the count.
 */

/** The fields of a message type that are messages themselves, by number. */
export type Shape = ReadonlyMap<number, Shape>

export interface FieldCount {
  /** How often the most frequent field of the message itself occurs: the items of a batch. */
  readonly items: number
  /** Fields of the message and of the messages in it. */
  readonly fields: number
  /** Whether the last field ends where the message does; the decoder takes a shorter one. */
  readonly isWhole: boolean
}

/** Field numbers from here on are counted together. */
const NUMBERS = 64

class Scan {
  readonly #bytes: Uint8Array
  readonly #max: number
  readonly #occurrences = new Uint32Array(NUMBERS)
  #at = 0
  #fields = 0

  constructor(bytes: Uint8Array, max: number) {
    this.#bytes = bytes
    this.#max = max
  }

  count(shape: Shape): FieldCount {
    const isWhole = this.#message(this.#bytes.length, shape, true)
    const items = this.#occurrences.reduce((a, b) => Math.max(a, b))
    return { items, fields: this.#fields, isWhole }
  }

  /** False where the bytes are not a message, or have more fields than the limit. */
  #message(end: number, shape: Shape | undefined, isOutermost: boolean): boolean {
    while (this.#at < end) {
      const tag = this.#varint(end)
      if (tag === undefined || this.#fields > this.#max) return false
      this.#fields += 1
      const number = Math.floor(tag / 8)
      if (isOutermost) {
        const slot = Math.min(number, NUMBERS - 1)
        this.#occurrences[slot] = (this.#occurrences[slot] ?? 0) + 1
      }
      if (!this.#value(tag % 8, end, shape?.get(number))) return false
    }
    return this.#at === end
  }

  #value(wireType: number, end: number, shape: Shape | undefined): boolean {
    switch (wireType) {
      case 0:
        return this.#varint(end) !== undefined
      case 1:
        return this.#skip(8, end)
      case 2: {
        const length = this.#varint(end)
        if (length === undefined || this.#at + length > end) return false
        if (shape === undefined) return this.#skip(length, end)
        const last = this.#at + length
        return this.#message(last, shape, false)
      }
      // The marks of a group have no value; what is between them counts as fields.
      case 3:
      case 4:
        return true
      case 5:
        return this.#skip(4, end)
      default:
        return false
    }
  }

  #skip(length: number, end: number): boolean {
    this.#at += length
    return this.#at <= end
  }

  /** Up to 64 bits; what is above 2^53 is not exact, and no length or tag of a message. */
  #varint(end: number): number | undefined {
    let value = 0
    for (let factor = 1; this.#at < end && factor < 2 ** 70; factor *= 128) {
      const byte = this.#bytes[this.#at] ?? 0
      this.#at += 1
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
    return undefined
  }
}

/** Count the fields of a message of this shape; no further than a little beyond `max`. */
export const countFields = (bytes: Uint8Array, shape: Shape, max: number): FieldCount =>
  new Scan(bytes, max).count(shape)
