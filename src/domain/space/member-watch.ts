/**
 * Watches for groups that the kernel takes out of address spaces: a driver unbound by another tool, a
 * device removed. The kernel signals nothing on the fds of a group whose last device leaves, so the
 * groups are asked while any is attached, one request each. A call that the kernel refuses asks at once.
 */

import { VfiodError } from '../../base/error.ts'
import type { State } from '../state/state.ts'
import type { Spaces } from './spaces.ts'

export function watchMembers(parts: {
  readonly state: State
  readonly spaces: Spaces
  /** How long it takes at most until a loss is noticed where no call is working in the space. */
  readonly everyMs: number
}): void {
  const { state, spaces, everyMs } = parts
  let timer: NodeJS.Timeout | undefined
  const look = async (): Promise<void> => {
    try {
      await spaces.reconcile()
    } catch (error) {
      // The next look tries again.
      if (!(error instanceof VfiodError)) throw error
    }
    timer = undefined
    schedule()
  }
  const schedule = (): void => {
    if (timer !== undefined || !spaces.list().some(({ isAttached }) => isAttached)) return
    timer = setTimeout(() => void look(), everyMs)
    timer.unref()
  }
  state.listen((change) => {
    if (change.kind === 'member-set') schedule()
  })
}
