// The conformance run: compiles what runs in the test machine, as its emulated processor is too
// slow for a loader, and starts it there.
//
//   npm run test:conformance [-- AREA...]
//   npm run test:conformance -- --record    writes the golden traces anew
//
//   VFIOD_OPS   operations per area (default 20000)
//   VFIOD_SEED  the first seed; with VFIOD_PATH, one sequence of that seed's

import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const out = `${root}node_modules/.cache/conformance`
const golden = `${root}test/conformance/golden`

function compile() {
  mkdirSync(out, { recursive: true })
  writeFileSync(`${out}/package.json`, '{ "type": "module" }\n')
  const tsc = [`${root}node_modules/typescript/bin/tsc`, '-p', 'test/conformance/tsconfig.json']
  execFileSync(process.execPath, tsc, { cwd: root, stdio: 'inherit' })
  execFileSync('cc', ['-O2', '-o', `${out}/second`, 'test/conformance/second.c'], { cwd: root })
  return `${out}/test/conformance/main.js`
}

// A recorded trace comes as one line: `golden AREA JSON`.
const recorded = new Map()
function onLine(line) {
  const [, area, json] = /^golden (\S+) (.*)$/.exec(line) ?? []
  if (area === undefined) console.log(line)
  else recorded.set(area, [...(recorded.get(area) ?? []), json])
}

// One processor: QEMU 7.2 goes wrong when another one moves BARs meanwhile.
const machine = ['--processors', '1', '--append', 'no_timer_check', '--']
const guest = spawn(
  process.execPath,
  [`${root}test/vm/run.mjs`, ...machine, process.execPath, compile(), ...process.argv.slice(2)],
  { cwd: root, stdio: ['inherit', 'pipe', 'inherit'] },
)
createInterface({ input: guest.stdout }).on('line', onLine)
guest.on('close', (code) => {
  for (const [area, traces] of recorded) {
    const path = `${golden}/${area}.json`
    writeFileSync(path, `[\n${traces.join(',\n')}\n]\n`)
    console.log(`wrote ${area}.json: ${readFileSync(path).length} bytes`)
  }
  process.exitCode = code ?? 1
})
