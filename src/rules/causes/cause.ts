/**
 * A cause: one reason why a kernel refuses a call. Most errnos have several, so an errno is never a
 * cause by itself: the table (table.ts) lists the causes of each, and a verdict says of one cause
 * whether facts prove it or rule it out.
 */

import type { Blocker, LimitHit, Reason } from '../../base/error.ts'

export interface Cause {
  readonly reason: Reason
  /** What is so when this is the cause: a clause that follows "because". */
  readonly found: string
  /** What to do: a clause in the imperative. */
  readonly fix: string
}

/** A cause that facts prove, in words and values of the case at hand. */
export interface Proof<Id extends string = string> {
  readonly cause: Id
  readonly isSo: true
  readonly found: string
  /** The fix of the catalog where this is missing. */
  readonly fix?: string
  readonly blockers?: readonly Blocker[]
  readonly quota?: LimitHit
  readonly resource?: { readonly type: string; readonly name: string; readonly owner?: string }
}

/** What facts say of one cause. A cause without a verdict remains possible. */
export type Verdict<Id extends string = string> =
  | Proof<Id>
  | { readonly cause: Id; readonly isSo: false }

export const ruledOut = <Id extends string>(...causes: Id[]): Verdict<Id>[] =>
  causes.map((cause) => ({ cause, isSo: false }))
