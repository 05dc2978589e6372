/** Users and groups by name or number, as /etc/passwd and /etc/group have them. */
import { readFileSync } from 'node:fs'
import { ConfigError } from './config-error.ts'

const numberIn = (file: string, kind: string, name: string): number => {
  if (/^\d+$/.test(name)) return Number(name)
  const lines = readFileSync(file, 'utf8').split('\n')
  const fields = lines.map((line) => line.split(':')).find(([first]) => first === name)
  if (fields?.[2] === undefined)
    throw new ConfigError(`Cannot use ${kind} "${name}": there is none of that name`)
  return Number(fields[2])
}

export const userNumber = (name: string): number => numberIn('/etc/passwd', 'user', name)

export const groupNumber = (name: string): number => numberIn('/etc/group', 'group', name)

/** Uids that a user may take in a user namespace. */
export interface SubordinateUids {
  readonly owner: number
  readonly first: number
  readonly count: number
}

/** subuid(5), one line for each range: `alice:100000:65536`. A line for a user that is unknown is none. */
export function subordinateUids(file: string): SubordinateUids[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return []
  }
  return text.split('\n').flatMap((line) => {
    const [, name, first, count] = /^([^:#]+):(\d+):(\d+)$/.exec(line.trim()) ?? []
    if (name === undefined) return []
    try {
      return [{ owner: userNumber(name), first: Number(first), count: Number(count) }]
    } catch (error) {
      if (error instanceof ConfigError) return []
      throw error
    }
  })
}

/** The user whose subordinate uid this is. */
export const ownerOfUid = (ranges: readonly SubordinateUids[], uid: number): number | undefined =>
  ranges.find(({ first, count }) => uid >= first && uid < first + count)?.owner
