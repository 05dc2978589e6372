/** How a call ended, as its line in the log says it: who called, on what, and why it was refused. */
import type { VfiodError } from '../../base/error.ts'
import type { Log } from '../identity/log.ts'
import type { MethodPolicy } from './method-policy.ts'

export interface Method {
  /** Without the slash that its path begins with. */
  readonly name: string
  /** A watch: it goes on until it is cancelled. */
  readonly isEndless: boolean
  readonly policy: MethodPolicy
}

/** What is known of a method before its call is read. */
type LoggedMethod = Pick<Method, 'name' | 'policy'> & Partial<Pick<Method, 'isEndless'>>

/** The one line that a call leaves in the log. */
export const logOutcome = (
  log: Log,
  { name, policy, isEndless = false }: LoggedMethod,
  outcome: {
    readonly client?: string | undefined
    readonly identity?: string | undefined
    readonly object?: Readonly<Record<string, unknown>>
    readonly ms: number
    readonly failure: VfiodError | undefined
  },
): void => {
  const { client, identity, object = {}, ms, failure } = outcome
  const about = policy.isAudited ? { audit: true, object } : {}
  const fields = { method: name, client, identity, ...about, ms }
  // What changes nothing is of interest to a developer; a driver makes hundreds of such calls a second.
  if (failure === undefined) {
    if (policy.isAudited) log.info(fields, 'call')
    else log.debug(fields, 'call')
    return
  }
  const { reason, details, message, cause } = failure
  const more = { ...fields, reason, errno: details.errno, op: details.op }
  if (reason === 'BUG') log.error({ ...more, err: cause ?? failure }, 'call failed by a mistake')
  else if (isEndless && reason === 'CANCELLED') log.debug(more, 'watch ended')
  else log.info({ ...more, refusal: message }, 'call refused')
}
