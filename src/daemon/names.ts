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
