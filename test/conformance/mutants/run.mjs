// Plants each error of mutants.mjs in a copy of the simulator, one at a time, and replays the
// golden traces on it: `node test/conformance/mutants/run.mjs`. Fails if one is not seen.

import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { mutants } from './mutants.mjs'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const copy = mkdtempSync(join(tmpdir(), 'vfiod-mutants-'))

function prepare() {
  for (const part of ['src', 'test/conformance', 'test/contract', 'tsconfig.json', 'package.json'])
    cpSync(join(root, part), join(copy, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const config = join(copy, 'test/conformance/tsconfig.json')
  const text = readFileSync(config, 'utf8').replace(/"outDir": "[^"]*"/, '"outDir": "../../out"')
  writeFileSync(config, text)
}

/** What the replay says, and whether all of it was as recorded. */
function replay() {
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  execFileSync(process.execPath, [tsc, '-p', 'test/conformance/tsconfig.json'], { cwd: copy })
  const main = 'out/test/conformance/replay-main.js'
  const ran = spawnSync(process.execPath, [main, 'test/conformance/golden'], {
    cwd: copy,
    encoding: 'utf8',
    timeout: 120_000,
  })
  const output = `${ran.stdout}${ran.stderr}`.trim().split('\n')
  return { isSame: ran.status === 0, says: `${output.at(-1)}; ${output[0]}` }
}

function plant({ file, from, to }) {
  const path = join(copy, 'src/backends/sim', file)
  const before = readFileSync(path, 'utf8')
  if (before.split(from).length !== 2) throw new Error(`${file} has not exactly one: ${from}`)
  writeFileSync(
    path,
    before.replace(from, () => to),
  )
  return () => writeFileSync(path, before)
}

let missed = 0
try {
  prepare()
  const untouched = replay()
  if (!untouched.isSame) throw new Error(`Without an error planted: ${untouched.says}`)
  for (const mutant of mutants) {
    const undo = plant(mutant)
    const { isSame, says } = replay()
    undo()
    if (isSame) missed += 1
    console.log(`${isSame ? 'MISSED' : 'caught'}  ${mutant.name}`)
    if (!isSame) console.log(`        ${says.slice(0, 160)}`)
  }
  console.log(`${mutants.length - missed} caught, ${missed} missed`)
} finally {
  rmSync(copy, { recursive: true, force: true })
}
process.exitCode = missed === 0 ? 0 : 1
