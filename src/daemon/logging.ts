/** The log: one JSON object per line on stderr, where the journal takes it. */
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { type Logger, pino } from 'pino'
import type { Config } from './config.ts'

export interface Logging {
  readonly logger: Logger
  /** Writes what is still in memory; nothing can be logged afterwards. */
  close(): Promise<void>
  /** The same at once, for an end that cannot wait: the last lines may come in another order. */
  flush(): void
}

/** A reader that has stopped does not keep the daemon from ending. */
const CLOSE_MS = 1000

/** Beyond this, lines are dropped: a reader that stopped must not fill the daemon's memory. */
const PENDING_MAX = 16 << 20

export const createLogging = (level: Config['log_level']): Logging => {
  // Asynchronous, because a pipe whose reader has stopped would block the event loop.
  const destination = pino.destination({ fd: 2, sync: false, maxLength: PENDING_MAX })
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  const logger = pino(
    { ...options, formatters: { level: (label) => ({ level: label }) } },
    destination,
  )
  return {
    logger,
    close: async () => {
      const closed = once(destination, 'close')
      destination.end()
      await Promise.race([closed, delay(CLOSE_MS, undefined, { ref: false })])
    },
    flush: () => {
      try {
        destination.flushSync()
      } catch {
        // stderr is gone: there is nobody left to tell.
      }
    },
  }
}
