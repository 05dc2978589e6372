/**
 * Shutdown, in order: refuse new calls, wait a while for the running ones, release the resources of
 * every client, close. The kernel would release them too when the process ends, but not in an order
 * that resets a device before its memory is unmapped.
 */
import type { Api } from '../api/api.ts'
import type { Log } from '../api/identity/log.ts'
import type { Domain } from '../domain/domain.ts'
import { notify } from '../os/notify.ts'

export interface ShutdownParts {
  readonly api: Api
  readonly domain: Domain
  readonly log: Log
  readonly drainMs: number
}

/** Answers once nothing is left. */
export const shutDown = async (why: string, parts: ShutdownParts): Promise<void> => {
  const { api, domain, log, drainMs } = parts
  log.info({ why }, 'stopping')
  notify(`STOPPING=1\nSTATUS=stopping: ${why}`)
  await api.drain(drainMs)
  await domain.releaseAll('the daemon stops')
  await api.close()
  log.info({}, 'stopped')
}

const SIGNALS = ['SIGTERM', 'SIGINT'] as const

/** The exit code after a second signal, which means: do not wait. */
const EXIT_IMPATIENT = 130

/** Calls `stop` for the first signal; the second ends the process at once. */
export const onSignals = (stop: (why: string) => void, exit: (code: number) => void): void => {
  let isStopping = false
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (isStopping) exit(EXIT_IMPATIENT)
      isStopping = true
      stop(signal)
    })
  }
}
