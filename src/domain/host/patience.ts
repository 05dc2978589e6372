/**
 * Waiting for a step of the kernel that may never end: an unbind while a process uses the device, a
 * pin of a terabyte. The caller is answered after a while; the step continues, and its lane stays busy.
 */

import { VfiodError } from '../../base/error.ts'
import { Deadline } from '../../os/deadline.ts'

/** What `work` answers, or KERNEL_NOT_DONE with what it is at when the time is over. */
export function patiently<T>(
  work: Promise<T>,
  ms: number,
  late: { readonly act: string; readonly step: () => string },
): Promise<T> {
  return new Promise((resolve, reject) => {
    const deadline = new Deadline(ms, () => reject(notDone(late.act, late.step(), ms)))
    work.then(resolve, reject).finally(() => deadline.cancel())
  })
}

/** Runs one step of the work, for which a caller waits so long and no longer. */
export type Within = <R>(step: string, slow: Promise<R>) => Promise<R>

/** The same where certain steps of the work may never end, and the others do. */
export function patientlyIn<T>(
  ms: number,
  act: string,
  work: (within: Within) => Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const within: Within = async (step, slow) => {
      const deadline = new Deadline(ms, () => reject(notDone(act, step, ms)))
      try {
        return await slow
      } finally {
        deadline.cancel()
      }
    }
    work(within).then(resolve, reject)
  })
}

export const notDone = (act: string, step: string, ms: number): VfiodError =>
  new VfiodError(
    'KERNEL_NOT_DONE',
    `Cannot ${act} within ${ms / 1000} s: ${step} has not finished; the kernel works on, check again later`,
  )
