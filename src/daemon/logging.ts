/**
 * The log, and the audit beside it. The log has a least level; the audit has none: a line of it is
 * written whatever the level is, and a flood of other lines does not take its place. Both are lines
 * of JSON, or text for people in front of a terminal.
 */
import { fstatSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { type Logger, pino } from 'pino'
import type { Log } from '../api/identity/log.ts'
import type { Config } from './config.ts'
import { LineSink } from './line-sink.ts'
import { textLine } from './text-line.ts'

export interface Logging {
  readonly logger: Log
  /** For the last words of the daemon. */
  fatal(fields: Readonly<Record<string, unknown>>, message: string): void
  /** Opens the audit file again, which may have been moved away. */
  reopen(): void
  /** Writes what is still in memory; nothing can be logged afterwards. */
  close(): Promise<void>
  /** The same at once, for an end that cannot wait: the last lines may come in another order. */
  flush(): void
}

export type LogOptions = Pick<Config, 'log_level' | 'log_format' | 'audit'>

/** A reader that has stopped does not keep the daemon from ending. */
const CLOSE_MS = 1000

/** sd-daemon(3): SD_ERR and the like, by pino's numbers. */
const PRIORITIES: readonly (readonly [number, number])[] = [
  [60, 2],
  [50, 3],
  [40, 4],
  [30, 6],
  [0, 7],
]
/** SD_NOTICE: of more weight than a line of the log, and no fault. */
const AUDIT_PRIORITY = 5

const priorityOf = (level: number): number =>
  PRIORITIES.find(([least]) => level >= least)?.[1] ?? AUDIT_PRIORITY

/** systemd.exec(5): $JOURNAL_STREAM is the device and inode of a stderr that goes to the journal. */
export const isJournal = (fd: number, { JOURNAL_STREAM: stream }: NodeJS.ProcessEnv): boolean => {
  if (stream === undefined) return false
  const { dev, ino } = fstatSync(fd)
  return stream === `${dev}:${ino}`
}

/** How a line of JSON is written on stderr. */
type Shape = (line: string, priority: number) => string

const shapeOf = (format: Config['log_format']): Shape => {
  if (isJournal(2, process.env)) return (line, priority) => `<${priority}>${line}`
  const isText = format === 'text' || (format === 'auto' && process.stderr.isTTY === true)
  return isText ? textLine : (line) => line
}

const OPTIONS = {
  base: null,
  timestamp: pino.stdTimeFunctions.isoTime,
  formatters: { level: (label: string) => ({ level: label }) },
} as const

/** pino writes lines to it, and says before what level they are of. */
const streamOf = (write: (line: string, level: number) => void) => ({
  [Symbol.for('pino.metadata')]: true as const,
  lastLevel: 30,
  write(line: string): void {
    write(line, this.lastLevel)
  },
})

export const createLogging = (options: LogOptions): Logging => {
  const { log_level: level, log_format: format, audit: auditTo } = options
  const stderr = new LineSink({ fd: 2 })
  const file = auditTo.startsWith('/') ? new LineSink({ file: auditTo }) : undefined
  const shape = shapeOf(format)
  const logger = pino(
    { ...OPTIONS, level },
    streamOf((line, lineLevel) => stderr.write(shape(line, priorityOf(lineLevel)))),
  )
  const audit = pino(
    { ...OPTIONS, level: auditTo === 'off' ? 'silent' : 'debug' },
    streamOf((line) => {
      if (file === undefined) stderr.writeFirst(shape(line, AUDIT_PRIORITY))
      else file.writeFirst(line)
    }),
  )
  const sinks = file === undefined ? [stderr] : [stderr, file]
  return {
    logger: routed(logger, audit),
    fatal: (fields, message) => logger.fatal(fields, message),
    reopen: () => file?.reopen(),
    close: async () => {
      const closed = Promise.all(sinks.map((sink) => sink.close()))
      const waited = new AbortController()
      // Without it the event loop would be empty and Node would end with 13.
      const late = delay(CLOSE_MS, undefined, { signal: waited.signal }).catch(() => undefined)
      await Promise.race([closed, late])
      waited.abort()
    },
    flush: () => {
      for (const sink of sinks) sink.flush()
    },
  }
}

/** What has `audit: true` is a line of the audit; all else is one of the log. */
const routed = (logger: Logger, audit: Logger): Log => {
  const line =
    (level: keyof Log): Log[keyof Log] =>
    (fields, message) =>
      (fields.audit === true ? audit : logger)[level](fields, message)
  return {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
  }
}
