/** Numbers and ranges as the machine file writes them. */
import { z } from 'zod'
import { U64_MAX } from '../../../base/units.ts'

/** A number of 64 bits: TOML's own integers end at 2^63, so longer ones are written as text. */
export const u64 = z
  .union([
    z.int().nonnegative(),
    z.bigint().nonnegative(),
    z.string().regex(/^(0x[0-9a-fA-F_]+|[0-9_]+)$/, 'a number such as "0xfee00000" is needed'),
  ])
  .transform((value) => BigInt(typeof value === 'string' ? value.replaceAll('_', '') : value))
  .refine((value) => value <= U64_MAX, 'it must be below 2^64')

export const range = z
  .strictObject({ start: u64, last: u64 })
  .refine(({ start, last }) => start <= last, 'it must not end before it starts')

export const unsigned = (bits: number) =>
  z
    .int()
    .nonnegative()
    .max(2 ** bits - 1)
export const powerOfTwo = u64.refine(
  (n) => n > 0n && (n & (n - 1n)) === 0n,
  'it must be a power of two',
)
