// The conformance run: compiles what runs in the test machine, as its emulated processor is too
// slow for a loader, and starts it there.
//
//   npm run test:conformance [-- AREA...]
//
//   VFIOD_OPS   operations per area (default 20000)
//   VFIOD_SEED  the first seed; with VFIOD_PATH, one sequence of that seed's

import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const out = `${root}node_modules/.cache/conformance`

export function compile() {
  mkdirSync(out, { recursive: true })
  writeFileSync(`${out}/package.json`, '{ "type": "module" }\n')
  const tsc = [`${root}node_modules/typescript/bin/tsc`, '-p', 'test/conformance/tsconfig.json']
  execFileSync(process.execPath, tsc, { cwd: root, stdio: 'inherit' })
  return `${out}/test/conformance/main.js`
}

const main = compile()
const guest = spawn(
  process.execPath,
  [
    `${root}test/vm/run.mjs`,
    '--append',
    'no_timer_check',
    '--',
    process.execPath,
    main,
    ...process.argv.slice(2),
  ],
  { cwd: root, stdio: 'inherit' },
)
guest.on('close', (code) => {
  process.exitCode = code ?? 1
})
