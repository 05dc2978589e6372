/**
 * Everything that src/abi exports, found by reading the directory: a file that is added later is
 * in every test of this folder without being named there.
 */

import { readdirSync } from 'node:fs'
import type { Ioctl } from '../../src/abi/ioctl.ts'
import { Struct } from '../../src/abi/layout.ts'
import type { FdKind } from '../../src/base/units.ts'

// biome-ignore lint/suspicious/noExplicitAny: a list of structs of every shape.
type AnyStruct = Struct<any>

export const structs = new Map<string, AnyStruct>()
export const requests = new Map<string, Ioctl<FdKind>>()
export const constants = new Map<string, number>()
/** The names of what is none of these: the tools of the room. */
export const others: string[] = []

const isRequest = (value: unknown): value is Ioctl<FdKind> =>
  typeof value === 'object' && value !== null && 'cName' in value && 'number' in value

const files = readdirSync(new URL('../../src/abi/', import.meta.url)).sort()
for (const file of files.filter((name) => name.endsWith('.ts'))) {
  const module: Record<string, unknown> = await import(`../../src/abi/${file.slice(0, -3)}.ts`)
  for (const [name, value] of Object.entries(module)) {
    if (value instanceof Struct) structs.set(name, value)
    else if (isRequest(value)) requests.set(name, value)
    else if (typeof value === 'number') constants.set(name, value)
    else others.push(name)
  }
}
