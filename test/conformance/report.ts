/** A difference as people read it: the shortest sequence that shows it, and how to see it again. */

import type { Result } from './duel.ts'
import type { Sequence } from './operation.ts'

export const differenceText = (
  area: string,
  { seed, path }: { readonly seed: number; readonly path: string },
  sequence: Sequence,
  { trace, difference }: Result,
  isRepeatable: boolean,
): string => {
  const lines = trace.map(([op, outcome]) => `  ${JSON.stringify(op)}  ->  ${outcome}`)
  return [
    `difference in ${area}${sequence.lockPages === null ? '' : `, memlock ${sequence.lockPages} pages`}:`,
    ...lines,
    `  Linux says      ${difference?.linux}`,
    `  simulator says  ${difference?.sim}`,
    ...(isRepeatable ? [] : ['  not every time']),
    `  again: VFIOD_SEED=${seed} VFIOD_PATH=${path} npm run test:conformance -- ${area}`,
  ].join('\n')
}
