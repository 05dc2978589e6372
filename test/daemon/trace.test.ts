/** vfiod --trace: the calls to the kernel on stderr or in a file, whatever becomes of the reader. */

import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connect } from '../../src/client/client.ts'
import { openTrace } from '../../src/daemon/trace-file.ts'
import { DaemonProcess, until } from './daemon-process.ts'

describe('vfiod --trace', () => {
  let daemon: DaemonProcess

  beforeEach(() => {
    daemon = new DaemonProcess()
  })
  afterEach(() => daemon.remove())

  /** A space with the group of an edu device. */
  const addGroup = async (): Promise<void> => {
    const client = connect({ socket: daemon.socket })
    await client.inventory.bindDevices({ devices: ['0000:00:04.0'] })
    await client.addressSpace.createSpace({ spaceId: 'vm' })
    await client.addressSpace.addGroup({ spaceId: 'vm', groupId: 3 })
    client.close()
  }

  test('writes every call to a file, behind what is there', async () => {
    const path = daemon.write('trace', 'before\n')
    await daemon.start({ trace: path })

    await addGroup()

    await until(() => readFileSync(path, 'utf8').includes('VFIO_SET_IOMMU'))
    const text = readFileSync(path, 'utf8')
    expect(text).toMatch(/^before\n/)
    expect(text).toMatch(
      /^ioctl\(group \d+, VFIO_GROUP_SET_CONTAINER, container \d+\) = 0 <\d+us>$/m,
    )
    expect(text).toMatch(/^ioctl\(container \d+, VFIO_SET_IOMMU, 3\) = 0 <\d+us>$/m)
  })

  test('makes a file that only its user reads', async () => {
    const path = join(daemon.directory, 'trace')
    await daemon.start({ trace: path })

    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test('writes to stderr, between the lines of the log', async () => {
    await daemon.start({ trace: 'stderr' })

    await addGroup()

    await until(() => daemon.stderr.includes('VFIO_SET_IOMMU'))
    const other = daemon.stderr
      .split('\n')
      .slice(0, -1)
      .filter((line) => !/^\{.*\}$/.test(line) && !/^\w+\(.*\) = .* <\d+us>$/.test(line))
    expect(other).toEqual([])
  })

  test('is refused where nothing can be written: 78', async () => {
    expect(await daemon.run({ trace: '/nowhere/trace' })).toBe(78)
    expect(daemon.stderr).toContain('Cannot write the trace to /nowhere/trace: ENOENT')
  })
})

describe('a trace', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfiod-trace-'))
  const pipe = join(directory, 'pipe')
  execFileSync('mkfifo', [pipe])
  afterAll(() => rmSync(directory, { recursive: true }))

  const LINE = `${'x'.repeat(1023)}\n`

  test('into a pipe without a reader is refused, not waited for: ENXIO', () => {
    expect(() => openTrace(pipe)).toThrow(`Cannot write the trace to ${pipe}: ENXIO`)
  })

  test('whose reader has stopped holds nothing up, and says afterwards how much is lost', async () => {
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
    const trace = openTrace(pipe)
    const made = 10_000
    for (let n = 0; n < made; n++) trace.write(LINE)

    let text = ''
    const bytes = Buffer.alloc(1 << 20)
    const drain = (): void => {
      try {
        for (let count = 1; count > 0; text += bytes.toString('utf8', 0, count))
          count = readSync(reader, bytes)
      } catch {
        // EAGAIN: nothing more now.
      }
    }
    const lost = (): number => Number(/^(\d+) lines of the trace are lost$/m.exec(text)?.[1] ?? 0)
    await until(() => {
      drain()
      // The next line that fits says what was lost before it.
      if (lost() === 0) trace.write('after\n')
      return lost() > 0 && text.includes('after\n')
    })

    const whole = text.split('\n').filter((line) => line.length === 1023).length
    expect(whole).toBeGreaterThan(8000)
    expect(whole).toBeLessThan(made)
    expect(lost()).toBeGreaterThanOrEqual(made - whole)
    closeSync(reader)
  })

  test('whose reader has stopped does not hold up the end either', () => {
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
    const trace = openTrace(pipe)
    for (let n = 0; n < 1000; n++) trace.write(LINE)

    trace.flush()

    expect(readSync(reader, Buffer.alloc(1024))).toBe(1024)
    closeSync(reader)
  })

  test('on a full disk goes on', async () => {
    const trace = openTrace('/dev/full')

    for (let n = 0; n < 3; n++) trace.write(LINE)
    trace.flush()

    expect(() => trace.write(LINE)).not.toThrow()
  })
})
