/** The log and the audit of a running daemon, and how lines are kept while nobody reads them. */

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  createReadStream,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { LineSink } from '../../src/daemon/line-sink.ts'
import { textLine } from '../../src/daemon/text-line.ts'
import { DaemonProcess, until } from './daemon-process.ts'

const MAIN = fileURLToPath(new URL('../../dist/daemon/main.js', import.meta.url))

let daemon: DaemonProcess
let client: VfiodClient
beforeEach(() => {
  daemon = new DaemonProcess()
  client = connect({ socket: daemon.socket })
})
afterEach(async () => {
  client.close()
  await daemon.remove()
})

const linesOf = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))

describe('the audit', () => {
  const auditFile = () => join(daemon.directory, 'audit.log')

  test('is written whatever the level of the log', async () => {
    void daemon.run({ log_level: 'error' })
    await daemon.isServing()

    await client.addressSpace.createSpace({ spaceId: 's' })
    await client.addressSpace.getSpace({ spaceId: 's' })

    await until(() => daemon.stderr.includes('CreateSpace'))
    expect(daemon.stderr.trim().split('\n')).toHaveLength(1)
  })

  test('names the ranges of a batch, and the items that were refused', async () => {
    await daemon.start({})
    await client.addressSpace.createSpace({ spaceId: 's' })
    await client.addressSpace.addGroup({ spaceId: 's', groupId: 1 })
    await client.memory.allocateMemory({ memoryId: 'ram', length: '8192' })
    const item = { memoryId: 'ram', offset: '0', access: 'ACCESS_READ' } as const
    const region = { device: '0000:00:05.0', region: 2 }
    const ofRegion = '0x0+0x1000 0000:00:05.0#2 read-write'

    await client.addressSpace.map({
      spaceId: 's',
      items: [
        { ...item, iova: '4096', length: '8192' },
        { ...item, iova: '8192', length: '4096' },
        { region, iova: '0', length: '4096', access: 'ACCESS_READ_WRITE' },
      ],
    })

    const isMap = ({ method }: Readonly<Record<string, unknown>>) =>
      method === 'vfiod.v1.AddressSpaceService/Map'
    await until(() => daemon.logged('call').some(isMap))
    expect(daemon.logged('call').find(isMap)).toMatchObject({
      audit: true,
      object: {
        spaceId: 's',
        items: ['0x1000+0x2000 ram read', '0x2000+0x1000 ram read', ofRegion],
        refused: ['0x2000+0x1000 ram read IOVA_IN_USE', `${ofRegion} DEVICE_NOT_OPEN`],
      },
    })
  })

  test('has one line for the registers that were written while a device was open', async () => {
    await daemon.start({})
    const name = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001'
    await client.addressSpace.createSpace({ spaceId: 's' })
    await client.addressSpace.addGroup({ spaceId: 's', groupId: 1 })
    await client.device.openDevice({ spaceId: 's', name })
    for (let write = 0; write < 3; write += 1)
      await client.device.writeRegion({ name, region: 0, offset: '7', data: Buffer.of(write) })
    await client.device.closeDevice({ name })

    await until(() => daemon.logged('registers written').length > 0)
    expect(daemon.logged('registers written')).toMatchObject([
      { audit: true, object: { name, regions: [0] }, writes: 3, bytes: 3 },
    ])
    expect(daemon.stderr).not.toContain('WriteRegion')
  })

  test('goes to a separate file for its owner alone, which SIGHUP opens anew', async () => {
    await daemon.start({ audit: auditFile() })
    await client.addressSpace.createSpace({ spaceId: 'first' })
    await until(() => linesOf(auditFile()).length === 1)
    renameSync(auditFile(), `${auditFile()}.1`)

    daemon.signal('SIGHUP')
    await until(() => statSync(auditFile(), { throwIfNoEntry: false }) !== undefined)
    await client.addressSpace.createSpace({ spaceId: 'second' })
    await until(() => readFileSync(auditFile(), 'utf8').includes('second'))

    expect(statSync(auditFile()).mode & 0o777).toBe(0o600)
    expect(linesOf(`${auditFile()}.1`)).toMatchObject([{ object: { spaceId: 'first' } }])
    expect(daemon.stderr).not.toContain('"audit":true')
  })

  test('is nowhere when it is off', async () => {
    await daemon.start({ audit: 'off' })
    await client.addressSpace.createSpace({ spaceId: 's' })
    daemon.signal('SIGTERM')

    await until(() => daemon.logged('stopped').length > 0)
    expect(daemon.stderr).not.toContain('CreateSpace')
  })

  test('in a folder that is not there keeps the daemon from starting: EX_CONFIG', async () => {
    expect(await daemon.run({ audit: '/no/such/folder/audit.log' })).toBe(78)
    expect(daemon.stderr).toBe(
      'vfiod: Cannot write the audit to /no/such/folder/audit.log: ENOENT\n',
    )
  })
})

describe('a line on stderr', () => {
  test('begins with its priority where stderr is the journal, and nowhere else', async () => {
    const path = join(daemon.directory, 'journal')
    const fd = openSync(path, 'w')
    const { dev, ino } = fstatSync(fd)
    const child = spawn(process.execPath, [MAIN, '--sim', '--socket', daemon.socket], {
      env: { ...process.env, JOURNAL_STREAM: `${dev}:${ino}` },
      stdio: ['ignore', 'ignore', fd],
    })
    closeSync(fd)
    await until(() => readFileSync(path, 'utf8').includes('"ready"'))
    await client.addressSpace.createSpace({ spaceId: 's' })
    child.kill('SIGTERM')
    await once(child, 'exit')

    const lines = readFileSync(path, 'utf8').trim().split('\n')
    const priorities = lines.map((line) => [line.slice(0, 3), JSON.parse(line.slice(3)).msg])
    expect(priorities).toEqual([
      ['<6>', 'ready'],
      ['<5>', 'call'],
      ['<6>', 'stopping'],
      ['<5>', 'released'],
      ['<6>', 'stopped'],
    ])
  })

  test('is text for people where that is wanted', () => {
    const line = {
      level: 'info',
      time: '2026-11-27T01:47:53.655Z',
      method: 'vfiod.v1.AdminService/Drain',
      refusal: 'Cannot do it',
      object: { a: 1 },
      msg: 'call refused',
    }

    expect(textLine(JSON.stringify(line))).toBe(
      '01:47:53.655 info  call refused method=vfiod.v1.AdminService/Drain refusal="Cannot do it" object={"a":1}\n',
    )
    expect(textLine(JSON.stringify({ ...line, audit: true }))).toContain(' audit call refused ')
    expect(textLine('no JSON\n')).toBe('no JSON\n')
  })
})

describe('lines without a reader', () => {
  test('are dropped before those that must not be, and the next line says how many', async () => {
    const fifo = join(daemon.directory, 'fifo')
    execFileSync('mkfifo', [fifo])
    // A pipe that is open for both takes what fits into it, and then no more.
    const fd = openSync(fifo, 'r+')
    const sink = new LineSink({ fd })
    const line = `${'x'.repeat(1023)}\n`
    for (let written = 0; written < 10 << 10; written += 1) sink.write(line)
    for (let written = 0; written < 100; written += 1) sink.writeFirst('audit\n')

    const reading = text(createReadStream(fifo))
    await until(() => sink.isIdle)
    sink.write('last\n')
    await sink.close()
    const lines = (await reading).split('\n')

    expect(lines.filter((each) => each === 'audit')).toHaveLength(100)
    const kept = lines.filter((each) => each.startsWith('x')).length
    expect(kept).toBeLessThan(10 << 10)
    expect(lines.slice(-3)).toEqual([
      JSON.stringify({ level: 'warn', dropped: (10 << 10) - kept, msg: 'lines dropped' }),
      'last',
      '',
    ])
  })
})
