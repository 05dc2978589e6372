// The unit files, as systemd reads them. An unknown key is a warning with exit code 0 there, so
// whatever is printed counts as a failure.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'

const unit = (name: string): string =>
  readFileSync(new URL(`../../systemd/${name}`, import.meta.url), 'utf8')

const hasSystemd = spawnSync('systemd-analyze', ['--version']).status === 0

const directory = mkdtempSync(join(tmpdir(), 'vfiod-units-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** verify looks for the program, which is not installed where tests run; Node stands in for it. */
const copies = (): string[] =>
  ['vfiod.service', 'vfiod.socket'].map((name) => {
    const copy = join(directory, name)
    writeFileSync(copy, unit(name).replace('/usr/bin/vfiod', process.execPath))
    return copy
  })

describe.runIf(hasSystemd)('systemd-analyze', () => {
  test('verify has nothing to say about the units', () => {
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...copies()])

    expect(stderr.toString()).toBe('')
    expect(status).toBe(0)
  })

  test('verify would have said something about a key that does not exist', () => {
    const copy = join(directory, 'wrong.service')
    writeFileSync(
      copy,
      `${unit('vfiod.service').replace('/usr/bin/vfiod', process.execPath)}\nX=1\n`,
    )

    const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', copy])

    expect(stderr.toString()).not.toBe('')
  })

  test('security finds the service no more exposed than 3 of 10', () => {
    const [service = ''] = copies()

    const { status } = spawnSync('systemd-analyze', [
      'security',
      '--offline=true',
      '--threshold=30',
      service,
    ])

    expect(status).toBe(0)
  })
})

describe('vfiod.service', () => {
  const service = unit('vfiod.service')

  test.each([
    ['Type=notify', 'it says when it is ready'],
    ['NotifyAccess=main', 'and nobody says it instead'],
    ['LimitMEMLOCK=infinity', 'type1 pins memory'],
    ['SystemCallFilter=@system-service @pkey', 'Node 20 allocates protection keys'],
    ['MALLOC_MMAP_THRESHOLD_=33554432', 'freed chunks are used again'],
    ['MALLOC_TRIM_THRESHOLD_=536870912', 'freed chunks are used again'],
    ['UV_THREADPOOL_SIZE=64', 'calls that sleep take a thread'],
    ['RuntimeDirectory=vfiod', 'the sockets are in /run/vfiod'],
  ])('has %s: %s', (line) => {
    expect(service).toContain(line)
  })

  test('does not have MemoryDenyWriteExecute, which ends V8', () => {
    expect(service).not.toMatch(/^MemoryDenyWriteExecute=yes/m)
  })
})

test('vfiod.socket listens where the configuration says by default', () => {
  expect(unit('vfiod.socket')).toContain('ListenStream=/run/vfiod/vfiod.sock')
  expect(unit('vfiod.socket')).toContain('ListenSequentialPacket=/run/vfiod/fds.sock')
})
