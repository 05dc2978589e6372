// What a process that gave up its rights can no longer do, tried by such a process.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const PROGRAM = fileURLToPath(new URL('./escape.mjs', import.meta.url))

const run = async (how: 'free' | 'forbidden'): Promise<Readonly<Record<string, string>>> => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    PROGRAM,
    how,
    String(process.pid),
  ])
  return JSON.parse(stdout)
}

test('a process that may ask for no more reaches no file, socket or process: EPERM', async () => {
  const [free, forbidden] = [await run('free'), await run('forbidden')]

  const names = Object.keys(free)
  expect(names.length).toBeGreaterThan(8)
  expect(Object.fromEntries(names.map((name) => [name, forbidden[name]]))).toEqual(
    Object.fromEntries(names.map((name) => [name, 'EPERM'])),
  )
  // Without it, each of them is allowed or fails for another reason.
  expect(Object.values(free)).not.toContain('EPERM')
})
