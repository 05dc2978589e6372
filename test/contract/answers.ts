/** How tests read an answer of the port: what it is when it is not refused, else the errno's name. */

import { type ErrnoName, errnoName } from '../../src/base/errno.ts'

export type Said = number | ErrnoName | `errno ${number}`

/** `0`, `24`, `'EEXIST'`. */
export const said = (answer: number): Said => (answer < 0 ? errnoName(-answer) : answer)

/** For what a test needs before it can begin. */
export const must = (answer: number, act: string): number => {
  if (answer < 0) throw new Error(`Cannot ${act}: ${said(answer)}`)
  return answer
}
