/**
 * The watchdog of the service manager (sd_watchdog_enabled(3)): told from the event loop, so that a
 * loop that is held up is noticed, and the process replaced.
 */
import { notify } from './notify.ts'

/** How often within the time that the manager waits. */
const TIMES = 3

/** Tells the manager from now on, where it waits for this process; answers how to end that. */
export const feedWatchdog = (env: NodeJS.ProcessEnv): (() => void) => {
  const { WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env
  const everyMs = Number(usec) / 1000 / TIMES
  if (!(everyMs > 0) || (pid !== undefined && Number(pid) !== process.pid)) return () => undefined
  notify('WATCHDOG=1')
  const timer = setInterval(() => notify('WATCHDOG=1'), everyMs)
  timer.unref()
  return () => clearInterval(timer)
}
