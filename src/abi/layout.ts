/**
 * Struct codecs: C layouts as data. A layout lists its fields in order with the padding written
 * out; size and offsets follow, little-endian, every field aligned to its own size (u64 to 8), as
 * the kernel's uAPI headers guarantee on every architecture vfiod runs on.
 */

export type FieldType = 'u8' | 'u16' | 'u32' | 's32' | 'u64'

type Value<T extends FieldType> = T extends 'u64' ? bigint : number
export type Fields = Readonly<Record<string, FieldType>>
export type Values<F extends Fields> = { -readonly [K in keyof F]: Value<F[K]> }

const SIZE: Record<FieldType, number> = { u8: 1, u16: 2, u32: 4, s32: 4, u64: 8 }

/** A view of `bytes` for multi-byte access, wherever it lies in its ArrayBuffer. */
export const dataView = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function put(view: DataView, type: FieldType, at: number, value: number | bigint): void {
  if (type === 'u64') view.setBigUint64(at, BigInt(value), true)
  else if (type === 'u32') view.setUint32(at, Number(value), true)
  else if (type === 's32') view.setInt32(at, Number(value), true)
  else if (type === 'u16') view.setUint16(at, Number(value), true)
  else view.setUint8(at, Number(value))
}

function take(view: DataView, type: FieldType, at: number): number | bigint {
  if (type === 'u64') return view.getBigUint64(at, true)
  if (type === 'u32') return view.getUint32(at, true)
  if (type === 's32') return view.getInt32(at, true)
  if (type === 'u16') return view.getUint16(at, true)
  return view.getUint8(at)
}

export class Struct<F extends Fields> {
  /** The C name, e.g. `vfio_group_status`. */
  readonly cName: string
  /** sizeof, trailing padding included (as the compiler computes it). */
  readonly size: number
  readonly offsets: { readonly [K in keyof F]: number }
  readonly types: F

  constructor(cName: string, types: F, options: { readonly size?: number } = {}) {
    this.cName = cName
    this.types = types
    const offsets: Record<string, number> = {}
    let at = 0
    let alignment = 1
    for (const [name, type] of Object.entries(types)) {
      const size = SIZE[type]
      at = Math.ceil(at / size) * size
      offsets[name] = at
      at += size
      alignment = Math.max(alignment, size)
    }
    this.offsets = offsets as { [K in keyof F]: number }
    this.size = options.size ?? Math.ceil(at / alignment) * alignment
  }

  /** Write the named fields into `bytes` at `base`; fields that are not named stay as they are. */
  write(bytes: Uint8Array, values: Partial<Values<F>>, base = 0): void {
    const view = dataView(bytes)
    for (const [name, value] of Object.entries(values)) {
      const type = this.types[name]
      const offset = this.offsets[name]
      if (type === undefined || offset === undefined)
        throw new TypeError(`${this.cName} has no field ${name}`)
      put(view, type, base + offset, value as number | bigint)
    }
  }

  /** Fresh bytes: the named fields, zero elsewhere, and `tail` more zero bytes behind the struct. */
  encode(values: Partial<Values<F>>, tail = 0): Uint8Array {
    const bytes = new Uint8Array(this.size + tail)
    this.write(bytes, values)
    return bytes
  }

  /** Every field of the struct at `base`. Throws a RangeError when `bytes` is too short for it. */
  decode(bytes: Uint8Array, base = 0): Values<F> {
    const view = dataView(bytes)
    const values: Record<string, number | bigint> = {}
    for (const name of Object.keys(this.types)) values[name] = this.get(view, name, base)
    return values as Values<F>
  }

  private get(view: DataView, name: keyof F & string, base: number): number | bigint {
    return take(view, this.types[name] as FieldType, base + this.offsets[name])
  }
}

/** Declare a C struct. Give `size` where the compiler's differs from what the fields add up to. */
export const struct = <const F extends Fields>(
  cName: string,
  types: F,
  options?: { readonly size?: number },
): Struct<F> => new Struct(cName, types, options)
