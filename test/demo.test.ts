/** `npm run demo` does what it says: it is run as a process, and everything it checks must hold. */

import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

// Each run is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const PROGRAM = fileURLToPath(new URL('../dist/demo/demo.js', import.meta.url))

let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'demo-test-'))
})

afterEach(() => rmSync(folder, { recursive: true }))

/** Runs the demo; with `until`, it gets SIGINT once it has said that. */
const runDemo = (until?: string): Promise<{ code: number | null; text: string; errors: string }> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [PROGRAM], {
      env: { ...process.env, TMPDIR: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let text = ''
    let errors = ''
    child.stdout.on('data', (bytes) => {
      text += bytes
      if (until !== undefined && text.includes(until)) child.kill('SIGINT')
    })
    child.stderr.on('data', (bytes) => {
      errors += bytes
    })
    // Closed when the daemon and every other client have let go of it as well.
    child.once('close', (code) => resolve({ code, text, errors }))
  })

describe('npm run demo', () => {
  test('goes through every step and ends with 0 and a summary of two lines', async () => {
    const { code, text, errors } = await runDemo()

    expect({ code, errors }).toEqual({ code: 0, errors: '' })
    const titles = text.split('\n').filter((line) => /^\d+\. /.test(line))
    expect(titles.map((title) => title.replace(/:.*/, ''))).toEqual([
      '1. Find devices',
      '2. Share memory',
      '3. Drive a device',
      '4. Remap',
      '5. Migrate',
      '6. Be refused',
      '7. Outlive a client',
    ])
    expect(text.trimEnd().split('\n').slice(-3)).toEqual([
      '',
      expect.stringMatching(/^vfiod demo: 7 steps, \d+ checks, all as expected\.$/),
      expect.stringMatching(/^Next: /),
    ])
    expect(readdirSync(folder)).toEqual([])
    // The refusals are in the words of the daemon.
    const words = text.replaceAll(/\s+/g, ' ')
    expect(words).toContain('0000:00:1f.3 is bound to i801_smbus; bind it to vfio-pci or leave it')
    expect(words).toMatch(/0x100000\.\.0x2fffff of memory "[^"]+" is already mapped there/)
    expect(words).toMatch(/it belongs to pid \d+ \(demo\), uid \d+; the caller is pid \d+ \(tre/)
  })

  test('stops the daemon and leaves nothing behind when it is stopped in the middle', async () => {
    const { code, text, errors } = await runDemo('2. Share memory')

    expect(code).toBe(1)
    expect(errors).toContain('vfiod demo: stopped by SIGINT')
    expect(text).not.toContain('all as expected')
    expect(readdirSync(folder)).toEqual([])
  })
})
