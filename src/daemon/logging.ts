/** The log: one JSON object per line on stderr, where the journal takes it. */
import { type Logger, pino } from 'pino'
import type { Config } from './config.ts'

export interface Logging {
  readonly logger: Logger
  /** Writes what is still in memory; nothing is written after the process has gone. */
  flush(): void
}

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
    flush: () => {
      try {
        destination.flushSync()
      } catch {
        // stderr is gone: there is nobody left to tell.
      }
    },
  }
}
