/** The lines of the README that are tried by hand, run by a shell as they stand. */

import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'

// Each line is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000 })

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SOCKET = '/tmp/vfiod.sock'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vfiod-readme-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

/** The block after "By hand:", without its build, which the tests have done. */
const linesByHand = (): string[] => {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const [, block = ''] = /By hand:\n\n```sh\n([^`]*)```/.exec(readme) ?? []
  const [build, ...lines] = block.trim().split('\n')
  expect(build).toBe('npm run build')
  return lines
}

test('the lines by hand list the groups of a daemon that was started in the line before', async () => {
  const socket = join(folder, 'vfiod.sock')
  const script = linesByHand().join('\n').replaceAll(SOCKET, socket)
  // The daemon is the only process in the background, so it is what `$!` names.
  const child = spawn('sh', ['-ec', `trap 'kill $!; wait $!' EXIT\n${script}`], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (text) => {
    stdout += text
  })
  child.stderr.on('data', (text) => {
    stderr += text
  })
  const code = await new Promise((resolve) => child.once('close', resolve))

  expect(code, stderr).toBe(0)
  expect(stdout).toContain('\nserving\n')
  expect(stdout).toMatch(/^GROUP +VIABILITY/m)
})
