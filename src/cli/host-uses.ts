/** What the host uses devices for, under a table of groups or devices. */
import type { Device__Output as Device } from '../proto/vfiod/v1/Device.ts'

const useLines = ({ name, hostUses }: Device): string[] =>
  hostUses.map(
    ({ found, fix }) => `${name} is used by the host: ${found}; ${fix} before it is bound`,
  )

/** The text, and a line for each use. */
export const withHostUses = (text: string, devices: readonly Device[]): string => {
  const lines = devices.flatMap(useLines)
  return lines.length === 0 ? text : [text, lines.join('\n')].join('\n\n')
}
