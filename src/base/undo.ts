/** Undoing what a failed operation had done, and saying what is left of it. */

import { VfiodError } from './error.ts'

/** What could not be undone, and why. */
export interface UndoFailure<Done> {
  readonly done: Done
  readonly error: unknown
}

/** Undo steps in the given order. One that cannot be undone does not stop the others. */
export async function undo<Done>(
  steps: readonly Done[],
  undoOne: (done: Done) => Promise<void>,
): Promise<UndoFailure<Done>[]> {
  const left: UndoFailure<Done>[] = []
  for (const done of steps) {
    try {
      await undoOne(done)
    } catch (error) {
      left.push({ done, error })
    }
  }
  return left
}

/** The error that undid a batch, with what could not be undone. */
export function undone(cause: unknown, left: readonly string[]): unknown {
  if (left.length === 0 || !(cause instanceof VfiodError)) return cause
  return new VfiodError(
    cause.reason,
    `${cause.message}; could not be undone for ${left.join(', ')}`,
    cause.details,
    cause,
  )
}
