/** What comes out: the machine it was measured on, a table for people, and the same as JSON. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const commit = () => {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      cwd: ROOT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    return null
  }
}

/** Figures mean something only together with these. */
export const machineFacts = () => ({
  date: new Date().toISOString(),
  commit: commit(),
  node: process.version,
  kernel: release(),
  cpu: cpus()[0]?.model ?? 'unknown',
  cpus: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  loadAverage: loadavg()[0],
})

const number = (value) => {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2
  return value.toFixed(digits)
}

const HEAD = ['measure', 'unit', 'vfiod', 'peer', 'peer has', 'ratio']

/** One line per row and peer; what is the same as in the line above is left out. */
const linesOf = ({ name, unit, vfiod, peers }) => {
  const own = [name, unit, number(vfiod.median)]
  if (peers.length === 0) return [[...own, '-', '-', '-']]
  return peers.map((peer, index) => [
    ...(index === 0 ? own : ['', '', '']),
    peer.name,
    number(peer.median),
    peer.ratio.toFixed(peer.ratio < 0.1 ? 3 : 2),
  ])
}

export const table = (rows) => {
  const lines = [HEAD, ...rows.flatMap(linesOf)]
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => line[column].length)))
  const isNumber = (column) => [2, 4, 5].includes(column)
  const text = lines.map((line) =>
    line
      .map((cell, column) =>
        isNumber(column) ? cell.padStart(widths[column]) : cell.padEnd(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  )
  const rule = widths.map((width) => '-'.repeat(width)).join('  ')
  return [text[0], rule, ...text.slice(1)].join('\n')
}

export const defaultFile = ({ date }) =>
  `${ROOT}bench/out/bench-${date.slice(0, 19).replaceAll(':', '')}.json`

export const writeReport = (file, report) => {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`)
}
