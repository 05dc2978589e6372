/** What the host says of open devices, under a table of groups, devices or address spaces. */
import type { DeviceCondition__Output as DeviceCondition } from '../proto/vfiod/v1/DeviceCondition.ts'

const TEXT: Readonly<Record<string, string>> = {
  DEVICE_CONDITION_KIND_REQUESTED: 'is wanted back by the host; its owner has to close it',
  DEVICE_CONDITION_KIND_ERROR:
    'reported an uncorrectable error; its owner has to reset or close it',
  DEVICE_CONDITION_KIND_LOST: 'no longer answers; its owner has to close it',
}

const conditionText = ({ kind, name, sinceMs, closesInMs }: DeviceCondition): string => {
  const since = new Date(Number(sinceMs)).toISOString()
  const closes = closesInMs === 0 ? '' : `, or the daemon does in ${Math.ceil(closesInMs / 1000)} s`
  return `${name} ${TEXT[kind] ?? `is ${kind}`}${closes} (since ${since})`
}

/** The table, and a line for each condition. */
export const withConditions = (
  table: string,
  holders: readonly { readonly conditions: readonly DeviceCondition[] }[],
): string => {
  const lines = holders.flatMap(({ conditions }) => conditions.map(conditionText))
  return lines.length === 0 ? table : [table, lines.join('\n')].join('\n\n')
}
