/** A difference as people read it: the shortest sequence that shows it, and how to see it again. */

import type { Result } from './duel.ts'
import type { Sequence } from './operation.ts'

export const differenceText = (
  area: string,
  { seed, path }: { readonly seed: number; readonly path: string },
  sequence: Sequence,
  { outcomes, difference }: Result,
): string => {
  const ops = sequence.ops.slice(0, outcomes.length)
  const lines = ops.map((op, at) => `  ${JSON.stringify(op)}  ->  ${outcomes[at]}`)
  return [
    `difference in ${area}${sequence.lockPages === null ? '' : `, memlock ${sequence.lockPages} pages`}:`,
    ...lines,
    `  Linux says      ${difference?.linux}`,
    `  simulator says  ${difference?.sim}`,
    `  again: VFIOD_SEED=${seed} VFIOD_PATH=${path} npm run test:conformance -- ${area}`,
  ].join('\n')
}
