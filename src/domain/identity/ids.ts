/** Ids of objects: chosen by the client, or assigned when it chose none. */

import { randomUUID } from 'node:crypto'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'

const FORM = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/

/** The wanted id, or a new one for the empty string; BAD_ARGUMENT for one of another form. */
export function requireId(field: string, wanted: string): string {
  if (wanted === '') return randomUUID()
  if (wanted.length <= LIMITS.idLength && FORM.test(wanted)) return wanted
  throw new VfiodError(
    'BAD_ARGUMENT',
    `Cannot use "${wanted.slice(0, LIMITS.idLength)}" as ${field}: letters, digits and . _ : - are needed, at most ${LIMITS.idLength} of them, a letter or digit first`,
    { field },
  )
}
