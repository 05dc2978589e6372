/** Numbers on the command line: decimal or 0x, with K, M, G or T for powers of 1024. */
import { InvalidArgumentError } from 'commander'
import { U64_MAX } from '../base/units.ts'

const FORM = /^(0x[0-9a-f]+|\d+)(?:([KMGT])(?:i?B)?)?$/i
const SHIFT: Readonly<Record<string, bigint>> = { K: 10n, M: 20n, G: 30n, T: 40n }

/** An address, an offset or a length: 64 bits. */
export const parseNumber = (text: string): bigint => {
  const [, digits, suffix = ''] = FORM.exec(text) ?? []
  if (digits === undefined)
    throw new InvalidArgumentError('A number is needed, such as 4096, 0x1000, 4K, 2M or 1G.')
  const value = BigInt(digits) << (SHIFT[suffix.toUpperCase()] ?? 0n)
  if (value <= U64_MAX) return value
  throw new InvalidArgumentError('It has more than 64 bits.')
}

/** A count, an index or a group number: small enough to be a plain number. */
export const parseSmall = (text: string): number => {
  const value = parseNumber(text)
  if (value <= 0xffff_ffffn) return Number(value)
  throw new InvalidArgumentError('It has more than 32 bits.')
}

const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/
const MILLISECONDS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
/** The longest that a timer takes. */
const DURATION_MAX_MS = 0x7fff_ffff

/** A duration such as 500ms, 10s or 2m, in milliseconds; a number alone means seconds. */
export const parseDuration = (text: string): number => {
  const [, number, unit = 's'] = DURATION.exec(text) ?? []
  if (number === undefined)
    throw new InvalidArgumentError('A duration is needed, such as 10s, 500ms or 2m.')
  const ms = Math.round(Number(number) * (MILLISECONDS[unit] ?? 0))
  if (ms <= DURATION_MAX_MS) return ms
  throw new InvalidArgumentError('It is longer than 24 days.')
}

/** One of the few sizes a register access can have. */
export const WIDTHS = [1, 2, 4, 8] as const
export type Width = (typeof WIDTHS)[number]

export const parseWidth = (text: string): Width => {
  const width = WIDTHS.find((each) => String(each) === text)
  if (width !== undefined) return width
  throw new InvalidArgumentError(`One of ${WIDTHS.join(', ')} bytes is needed.`)
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB', 'ZiB'] as const

/** `2 MiB`, `96 B`, `1.5 GiB`: how byte counts read in tables. */
export const bytesText = (count: bigint | number | string): string => {
  let rest = Number(count)
  let unit = 0
  while (rest >= 1024) {
    rest /= 1024
    unit += 1
  }
  return `${Number.isInteger(rest) ? rest : rest.toFixed(1)} ${UNITS[unit]}`
}
