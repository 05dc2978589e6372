/** How the running daemon collects garbage: in one go, which its streams depend on. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'

const MAIN = fileURLToPath(new URL('../../dist/daemon/main.js', import.meta.url))

/** Leaves memory outside of the heap behind, as streams of 1 MiB messages do. */
const PRESSURE = `
  const kept = []
  setInterval(() => {
    kept.push(...Array.from({ length: 8 }, () => Buffer.alloc(1 << 20)))
    kept.splice(0, kept.length - 64)
  }, 1)`
const preload = `data:text/javascript,${encodeURIComponent(PRESSURE)}`
/** V8 writes a line to stdout for each collection, and for each marking in steps that begins. */
const FLAGS = ['--trace-gc', '--trace-incremental-marking', '--import', preload]
const COLLECTION = /: Mark-Compact /g
const BEGINNING = '[IncrementalMarking] Start'
const COLLECTIONS = 5

let folder: string
const children: ChildProcess[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vfiod-collector-'))
})
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  rmSync(folder, { recursive: true })
})

/** What V8 writes from when the program has printed `from`, through a few collections. */
const traceOf = (args: readonly string[], from: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...FLAGS, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    children.push(child)
    let text = ''
    child.stdout.on('data', (bytes) => {
      text += bytes
      const [, trace = ''] = text.split(from)
      if ((trace.match(COLLECTION)?.length ?? 0) >= COLLECTIONS) resolve(trace)
    })
    child.once('exit', (code) => reject(new Error(`it ended with ${code}:\n${text}`)))
  })

test('the daemon never marks in steps beside its work', async () => {
  const trace = await traceOf([MAIN, '--sim', '--socket', join(folder, 'vfiod.sock')], 'ready on')

  expect(trace).not.toContain(BEGINNING)
})

test('a process that leaves it to V8 does, under the same pressure', async () => {
  const trace = await traceOf(['--eval', 'console.log("ready on")'], 'ready on')

  expect(trace).toContain(BEGINNING)
})
