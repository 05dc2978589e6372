/** What the api room needs of a log: one line at a time, fields first. pino fits it. */

type Line = (fields: Readonly<Record<string, unknown>>, message: string) => void

export interface Log {
  readonly debug: Line
  readonly info: Line
  readonly warn: Line
  readonly error: Line
}
