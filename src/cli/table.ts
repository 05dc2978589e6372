/** Text in columns: a head, rows, no frame. A cell of several lines keeps its column. */
import CliTable from 'cli-table3'

const NO_FRAME = Object.fromEntries(
  [
    ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left'],
    ...['bottom-right', 'left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'],
  ].map((place) => [place, '']),
)

export type Cell = string | number | bigint

/** Bold heads are for people in front of a terminal. */
const headStyle = (): string[] =>
  process.stdout.isTTY && process.env.NO_COLOR === undefined ? ['bold'] : []

export const tableText = (head: readonly string[], rows: readonly (readonly Cell[])[]): string => {
  const table = new CliTable({
    head: [...head],
    chars: NO_FRAME,
    style: { 'padding-left': 0, 'padding-right': 2, head: headStyle(), border: [] },
  })
  table.push(...rows.map((row) => row.map((cell) => (cell === '' ? '-' : String(cell)))))
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}

/** `name  value` lines, for the properties of one thing. */
export const propertiesText = (properties: readonly (readonly [string, Cell])[]): string => {
  const width = Math.max(...properties.map(([name]) => name.length))
  return properties
    .map(([name, value]) => `${name.padEnd(width)}  ${value === '' ? '-' : value}`)
    .join('\n')
}

/** Lines that belong to the one above. */
export const indented = (text: string, by = 2): string =>
  text
    .split('\n')
    .map((line) => ' '.repeat(by) + line)
    .join('\n')

/** `read, write` of the flags that are set. */
export const flagsText = (flags: Readonly<Record<string, boolean>>): string =>
  Object.keys(flags)
    .filter((name) => flags[name])
    .join(', ')

/** An enum of the API without its prefix: `SPACE_STATE_READY` is `ready`. */
export const enumText = (prefix: string, name: string): string =>
  name.startsWith(prefix)
    ? name.slice(prefix.length).toLowerCase().replaceAll('_', ' ')
    : name.toLowerCase()
