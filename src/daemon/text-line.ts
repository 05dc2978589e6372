/** A line of the log as text, for people: `12:00:01.234 info  call method=... client=...`. */

const isPlain = (text: string): boolean => /^[\w./:@%+-]+$/.test(text)

const valueText = (value: unknown): string => {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return typeof value !== 'string' || isPlain(text) ? text : JSON.stringify(text)
}

/** From a line of JSON; a line that is none stays as it is. */
export const textLine = (line: string): string => {
  let parsed: Readonly<Record<string, unknown>>
  try {
    parsed = JSON.parse(line)
  } catch {
    return line
  }
  const { level, time = '', msg, audit, err, ...fields } = parsed
  const clock = /T([\d:.]+)Z/.exec(String(time))?.[1] ?? ''
  const pairs = Object.entries(fields).map(([key, value]) => `${key}=${valueText(value)}`)
  const head = [clock, String(audit === true ? 'audit' : level).padEnd(5), msg, ...pairs]
  const stack = (err as { readonly stack?: string } | undefined)?.stack
  return `${head.join(' ').trim()}${stack === undefined ? '' : `\n${stack}`}\n`
}
