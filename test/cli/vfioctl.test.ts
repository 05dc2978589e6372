/** The commands of vfioctl, where docs/vfioctl.md has no example of what they do. */

import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Daemon, ended, mttyDevices, startDaemon, until } from '../system/world.ts'
import { type Outcome, PROGRAM, run, start } from './vfioctl.ts'

// Each run is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const EDU = '0000:00:04.0'
const EDU_GROUP = 3
const SPOILED = '0000:00:1f.2'
const SPOILED_GROUP = 8

let daemon: Daemon
let cwd: string
let source: string
let target: string

const vfioctl = (...args: string[]): Promise<Outcome> => run(args, { socket: daemon.socket, cwd })

const json = async (...args: string[]) => {
  const { code, stdout, stderr } = await vfioctl(...args, '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return JSON.parse(stdout)
}

/** The error object of a command that is refused. */
const refused = async (...args: string[]) => {
  const { code, stdout, stderr } = await vfioctl(...args, '--json')
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  return JSON.parse(stderr).error
}

beforeAll(async () => {
  daemon = await startDaemon()
  cwd = mkdtempSync(join(tmpdir(), 'vfioctl-'))
  ;[source, target] = await mttyDevices(daemon.client())
  await vfioctl('bind', EDU)
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
  rmSync(cwd, { recursive: true })
})

describe('vfioctl reset --hot', () => {
  const CARD = '0000:01:00.0'

  test('prints the message of the API with --json, and says what is in the way', async () => {
    const looked = await daemon.client().device.getHotReset({ name: CARD })
    expect(await json('reset', CARD, '--hot', '--dry-run')).toEqual(
      JSON.parse(JSON.stringify(looked)),
    )

    expect(looked.possible).toBe(false)
    expect(await refused('reset', CARD, '--hot')).toMatchObject({ reason: 'SPACE_NOT_READY' })
  })

  test('says of a device on a root bus that nothing can reset its bus', async () => {
    const { code, stdout } = await vfioctl('reset', EDU, '--hot', '--dry-run')

    expect(code).toBe(0)
    expect(stdout).toBe(
      `a hot reset is not possible:\n  ${EDU} is on a bus that no bridge can reset; do without\n`,
    )
  })

  test('is what --dry-run needs: wrong usage without', async () => {
    expect(await vfioctl('reset', EDU, '--dry-run')).toMatchObject({ code: 2, stdout: '' })
  })
})

describe('vfioctl groups, devices', () => {
  test('print the messages of the API with --json', async () => {
    const client = daemon.client()

    expect(await json('groups')).toEqual(await client.inventory.listGroups())
    expect(await json('devices')).toEqual(await client.inventory.listDevices())
  })

  test('groups --watch reports a change and ends with 0 on Ctrl-C', async () => {
    const watching = start(['groups', '--watch'], { socket: daemon.socket })
    await watching.says('Watching; Ctrl-C ends.')
    await vfioctl('bind', '0000:00:05.0')
    await watching.says('group 4 is viable: 0000:00:05.0 (vfio-pci)')
    watching.interrupt()

    expect(await watching.outcome).toMatchObject({ code: 0, stderr: '' })
  })

  test('groups --watch --json prints one event per line, the present first', async () => {
    const watching = start(['groups', '--watch', '--json'], { socket: daemon.socket })
    await watching.says('presentSent')
    watching.interrupt()
    const { stdout } = await watching.outcome

    const events = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    const { groups } = await daemon.client().inventory.listGroups()
    expect(events.map(({ event }) => event)).toEqual([...groups.map(() => 'group'), 'presentSent'])
  })
})

describe('vfioctl map', () => {
  test('names who keeps a group from being used: SPACE_NOT_READY', async () => {
    const error = await refused('map', '--group', String(SPOILED_GROUP), '--length', '4K')

    expect(error).toMatchObject({ reason: 'SPACE_NOT_READY', status: 'FAILED_PRECONDITION' })
    expect(error.message).toContain(`${SPOILED} is bound to ahci`)
  })

  test('maps several groups into one space, at the lowest place', async () => {
    const { space, mapping } = await json(
      ...['map', '--group', '3', '--group', '1', '--length', '8K', '--access', 'read'],
    )

    expect(space).toMatchObject({ state: 'SPACE_STATE_READY', groupIds: [1, 3], mappings: 1 })
    expect(mapping).toMatchObject({ iova: '0', length: '8192', access: 'ACCESS_READ' })
  })

  test('--peer maps a region behind the memory, where a multiple of its size is', async () => {
    await vfioctl('bind', '0000:00:05.0')
    const map = ['map', '--group', '3', '--group', '4', '--length', '8K']
    const { space, peers } = await json(...map, '--peer', '0000:00:05.0/bar0')

    expect(space).toMatchObject({ mappings: 2, devices: ['0000:00:05.0'] })
    const place = { iova: `${1 << 20}`, length: `${1 << 20}` }
    expect(peers).toEqual([{ device: '0000:00:05.0', region: 0, name: 'BAR0', ...place }])
  })

  test('--peer is a device and a region: wrong usage otherwise', async () => {
    const map = ['map', '--group', '3', '--length', '4K', '--peer', '0000:00:05.0']

    expect(await vfioctl(...map)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('A device and a region are needed'),
    })
  })

  test('--hold keeps the space until Ctrl-C, and gives it back', async () => {
    const group = String(EDU_GROUP)
    const holding = start(['map', '--group', group, '--length', '2M', '--hold'], {
      socket: daemon.socket,
    })
    await holding.says('Ctrl-C ends')

    const { spaces } = await json('spaces')
    expect(spaces).toMatchObject([
      { groupIds: [EDU_GROUP], mappedBytes: '2097152', owner: { process: { command: 'vfioctl' } } },
    ])
    const error = await refused('info', EDU)
    expect(error).toMatchObject({ reason: 'GROUP_IN_USE' })
    expect(error.details.resource.owner).toContain('(vfioctl)')
    holding.interrupt()
    expect(await holding.outcome).toMatchObject({ code: 0, stderr: '' })
    expect(await json('spaces')).toEqual({ spaces: [] })
  })
})

describe('a device that is named another way', () => {
  test.each(['00:04.0', '00000000:00:04.0'])(
    'is answered by its canonical name: %s',
    async (name) => {
      const { stdout } = await vfioctl('info', name)

      expect(stdout).toMatch(/(^|\s)0000:00:04\.0\s/)
    },
  )
})

describe('vfioctl region', () => {
  test('writes a file to a region and reads it back into a file', async () => {
    writeFileSync(join(cwd, 'value'), Buffer.from('78563412', 'hex'))
    await vfioctl('region', 'write', EDU, 'bar0', '4', '--in', 'value')
    await vfioctl('region', 'read', EDU, '0', '4', '4', '--out', 'inverse')

    expect(readFileSync(join(cwd, 'inverse'))).toEqual(Buffer.from('87a9cbed', 'hex'))
  })

  test('reads by accesses of the width: edu ignores those of 1 byte', async () => {
    const by4 = await json('region', 'read', EDU, 'BAR0', '0', '8', '--width', '4')
    const by1 = await json('region', 'read', EDU, 'BAR0', '0', '8', '--width', '1')

    expect(by4.data.slice(0, 8)).toBe('ed000001')
    expect(by1.data).toBe('0'.repeat(16))
  })

  test('explains what cannot be accessed', async () => {
    const messages = await Promise.all([
      refused('region', 'read', source, 'BAR9', '0', '4'),
      refused('region', 'read', target, 'BAR0', '0', '6', '--width', '4'),
    ])

    expect(messages.map(({ message }) => message)).toEqual([
      `Cannot find region BAR9 of ${source}: it has BAR0, BAR1, CONFIG`,
      'Cannot access 6 bytes by 4: it is not a multiple',
    ])
    expect(await refused('region', 'read', EDU, 'CONFIG', '250', '16')).toMatchObject({
      reason: 'OUT_OF_REGION',
    })
    expect(
      await refused('region', 'write', EDU, 'BAR0', '4', '0x100', '--width', '1'),
    ).toMatchObject({ message: 'Cannot write 0x100 in 1 bytes: it is too large' })
  })
})

describe('vfioctl irq watch', () => {
  test('prints each event on a line of JSON', async () => {
    const { code, stdout } = await vfioctl(
      ...['irq', 'watch', EDU, 'msi', '--trigger', '0', '--events', '1', '--json'],
    )

    expect(code).toBe(0)
    expect(stdout).toBe('{"armed":true}\n{"irq":{"vector":0,"count":"1"}}\n')
  })

  test('names the indexes of the device when there is no such one', async () => {
    const { message } = await refused('irq', 'watch', EDU, 'MSIX')

    expect(message).toBe(`Cannot find IRQ index MSIX of ${EDU}: it has INTX, MSI, REQ`)
  })
})

describe('vfioctl dirty', () => {
  /** The messages of a command that is done; each is one JSON value, and the token is in the last. */
  const messages = async (...args: string[]) => {
    const { code, stdout, stderr } = await vfioctl(...args, '--json')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const values = stdout
      .trimEnd()
      .split(/\n(?=\{)/)
      .map((text) => JSON.parse(text))
    return { values, token: String(values.at(-1)?.token) }
  }

  test('prints the messages of the API with --json, and each time a token for what it leaves', async () => {
    const map = ['map', '--group', `${EDU_GROUP}`, '--length', '64K', '--hand-over', '60000']
    const mapped = await messages(...map, '--iova', '1M')
    const started = await messages('dirty', 'start', mapped.token)
    const read = await messages('dirty', 'read', started.token)
    const status = await messages('dirty', 'status', read.token)
    const stopped = await messages('dirty', 'stop', status.token)
    await vfioctl('unmap', stopped.token)

    const [{ tracking }] = started.values
    expect(tracking.sources).toMatchObject([{ precision: 'DIRTY_PRECISION_PINNED_PAGES' }])
    expect(read.values.slice(0, 2)).toMatchObject([
      { ranges: [{ iova: '1048576', length: '65536' }] },
      { end: { pages: '16' } },
    ])
    expect(status.values[0].tracking).toMatchObject({ reads: '1', lastReadPages: '16' })
    expect(stopped.values[0]).toEqual({})
  })

  test('opens the devices that are to log, and leaves everything when it is refused', async () => {
    const { devices } = await daemon.client().inventory.listDevices()
    const group = devices.find(({ name }) => name === source)?.groupId
    const map = ['map', '--group', `${group}`, '--length', '64K', '--hand-over', '60000']
    const { token } = await messages(...map)
    const started = await messages('dirty', 'start', token, '--device', source)
    expect(started.values[0].tracking.sources).toMatchObject([{ name: source }])

    const { code, stdout, stderr } = await vfioctl(
      'dirty',
      'start',
      started.token,
      '--iommu',
      '--json',
    )

    expect([code, JSON.parse(stderr).error.reason]).toEqual([1, 'TRACKING_STARTED'])
    const unmapped = await vfioctl('unmap', JSON.parse(stdout).token)
    expect(unmapped).toMatchObject({ code: 0, stderr: '' })
  })

  test('read wants --iova and --length together', async () => {
    expect((await refused('dirty', 'read', 'TOKEN', '--iova', '0')).message).toBe(
      'Cannot read a range: --iova and --length belong together',
    )
  })
})

describe('vfioctl migrate', () => {
  test('saves a stream whose hash it prints, and loads it into another device', async () => {
    await vfioctl('region', 'write', source, 'BAR0', '7', '0xa5', '--width', '1')
    const saved = await json('migrate', 'save', source, 'state')
    const loaded = await json('migrate', 'load', target, 'state')
    const { data } = await json('region', 'read', target, 'BAR0', '7', '1')

    const bytes = readFileSync(join(cwd, 'state'))
    const sha256 = createHash('sha256').update(bytes).digest('hex')
    expect(saved).toMatchObject({ bytes: 96, precopyBytes: 24, sha256 })
    expect(saved.path).toEqual([
      'MIGRATION_STATE_PRE_COPY',
      'MIGRATION_STATE_PRE_COPY_P2P',
      'MIGRATION_STATE_STOP_COPY',
      'MIGRATION_STATE_STOP',
    ])
    expect(loaded).toMatchObject({ bytes: '96', sha256, state: 'MIGRATION_STATE_RUNNING' })
    expect(data).toBe('a5')
  })

  test('resets a device that refuses, and says so', async () => {
    writeFileSync(join(cwd, 'garbage'), Buffer.alloc(96, 0xee))

    const error = await refused('migrate', 'load', target, 'garbage')
    const after = await json('migrate', 'caps', target)

    expect(error).toMatchObject({
      reason: 'STATE_REFUSED_BY_DEVICE',
      note: `vfioctl reset ${target}: it is RUNNING, with nothing of the file`,
    })
    expect(after.state).toBe('MIGRATION_STATE_RUNNING')
  })

  test('explains a file that cannot be read', async () => {
    const messages = await Promise.all([
      refused('migrate', 'load', source, 'no-such-file'),
      refused('migrate', 'load', target, '/proc/self'),
    ])

    expect(messages.map(({ message }) => message)).toEqual([
      'Cannot read "no-such-file": no such file or directory',
      'Cannot read "/proc/self": illegal operation on a directory',
    ])
  })

  test('leaves no file behind when the device cannot be saved', async () => {
    const error = await refused('migrate', 'save', EDU, 'edu-state')
    const { message } = await refused('migrate', 'save', source, 'no/such/folder')

    expect(error).toMatchObject({ reason: 'UNSUPPORTED', status: 'UNIMPLEMENTED' })
    expect(readdirSync(cwd).filter((name) => name.startsWith('edu-state'))).toEqual([])
    expect(message).toBe('Cannot write "no/such/folder": no such file or directory')
  })
})

describe('what vfioctl migrate save writes to', () => {
  /** A line of a shell that knows vfioctl. */
  const shell = async (line: string): Promise<{ stdout: string; stderr: string }> => {
    const script = `vfioctl() { "$NODE" "$PROGRAM" "$@"; }\n${line}`
    const own = { VFIOD_SOCKET: daemon.socket, NODE: process.execPath, PROGRAM }
    const child = spawn('sh', ['-c', script], { cwd, env: { ...process.env, ...own } })
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
    return { stdout, stderr }
  }
  const names = () => readdirSync(cwd).filter((name) => /^(out-|\.vfioctl-)/.test(name))
  const clear = () => {
    for (const name of names()) rmSync(join(cwd, name))
  }
  afterEach(clear)
  const save = (...args: string[]) => json('migrate', 'save', source, ...args)

  test('is a file for its owner alone, whatever the umask', async () => {
    await save('out-state')

    expect(statSync(join(cwd, 'out-state')).mode & 0o7777).toBe(0o600)
    expect(names()).toEqual(['out-state'])
  })

  test('is not a file that exists, unless with --force', async () => {
    writeFileSync(join(cwd, 'out-state'), 'precious')

    const { message } = await refused('migrate', 'save', source, 'out-state')
    const before = readFileSync(join(cwd, 'out-state'), 'utf8')
    const { bytes } = await save('out-state', '--force')

    expect(message).toBe('Cannot write "out-state": it exists; name another file, or add --force')
    expect(before).toBe('precious')
    expect(readFileSync(join(cwd, 'out-state'))).toHaveLength(bytes)
    expect(names()).toEqual(['out-state'])
  })

  test('is where a symbolic link leads, and the link stays one', async () => {
    writeFileSync(join(cwd, 'out-real'), 'old')
    symlinkSync('out-real', join(cwd, 'out-link'))

    const { bytes } = await save('out-link', '--force')

    expect(lstatSync(join(cwd, 'out-link')).isSymbolicLink()).toBe(true)
    expect(readFileSync(join(cwd, 'out-real'))).toHaveLength(bytes)
  })

  test('is neither a link that leads nowhere nor a folder', async () => {
    symlinkSync('no-such-file', join(cwd, 'out-link'))

    const messages = [
      (await refused('migrate', 'save', source, 'out-link')).message,
      (await refused('migrate', 'save', source, '.')).message,
    ]

    expect(messages).toEqual([
      'Cannot write "out-link": it is a symbolic link to a file that does not exist; name that file',
      'Cannot write ".": it is a directory',
    ])
  })

  test.each(['out-pipe', 'out-link'])('is a pipe that stays one: %s', async (name) => {
    execFileSync('mkfifo', [join(cwd, 'out-pipe')])
    symlinkSync('out-pipe', join(cwd, 'out-link'))
    const reading = readFile(join(cwd, 'out-pipe'))

    const { bytes, sha256 } = await save(name)

    const read = await reading
    expect(read).toHaveLength(bytes)
    expect(createHash('sha256').update(read).digest('hex')).toBe(sha256)
    expect(lstatSync(join(cwd, 'out-pipe')).isFIFO()).toBe(true)
  })

  test.each(['-', '/dev/stdout'])(
    'is standard output for %s, and load takes it from -',
    async (to) => {
      const { stdout, stderr } = await shell(
        `vfioctl migrate save ${source} ${to} | vfioctl migrate load ${target} - --json`,
      )

      const loaded = JSON.parse(stdout)
      expect(loaded).toMatchObject({ file: '-', bytes: '96', state: 'MIGRATION_STATE_RUNNING' })
      expect(stderr).toMatch(new RegExp(`^file +${to}$`, 'm'))
      expect(stderr).toMatch(new RegExp(`^sha256 +${loaded.sha256}$`, 'm'))
    },
  )

  test('fails with 1 when the reader of the pipe has gone', async () => {
    const { stderr } = await shell(`{ vfioctl migrate save ${source} -; echo $? >&2; } | true`)

    expect(stderr).toBe('vfioctl: Cannot write "-": broken pipe\n1\n')
  })

  test('leaves nothing behind when vfioctl is killed in the middle', async () => {
    const { simulator } = daemon.client()
    // The device holds its data back.
    const fault = { fault: 'held', call: 'read', kind: 'FAULT_KIND_STALL' } as const
    await simulator.injectFault({ fault })
    const saving = start(['migrate', 'save', source, 'out-state'], { socket: daemon.socket, cwd })
    await until(async () => (await simulator.listFaults()).faults[0]?.struck === '1' || undefined)

    saving.kill()
    await saving.outcome
    await simulator.clearFaults()

    expect(names()).toEqual([])
  })
})

describe('vfioctl', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    'gives back what it took when %s ends it',
    async (signal) => {
      const watching = start(['irq', 'watch', source, 'MSI'], { socket: daemon.socket })
      await watching.says('armed')

      watching.kill(signal)

      expect(await watching.outcome).toMatchObject({ code: 0, stderr: '' })
      expect((await json('spaces')).spaces).toEqual([])
    },
  )
})

describe('vfioctl and the end of the daemon', () => {
  test('map --hold notices it and exits with 1', async () => {
    const own = await startDaemon()
    await run(['bind', EDU], { socket: own.socket })
    const holding = start(['map', '--group', String(EDU_GROUP), '--length', '4K', '--hold'], {
      socket: own.socket,
    })
    await holding.says('Ctrl-C ends')

    await ended(own.process, () => own.process.kill('SIGKILL'))

    expect(await holding.outcome).toMatchObject({ code: 1 })
    await own.stop()
  })

  test('a vfioctl that is killed leaves nothing behind', async () => {
    const holding = start(['irq', 'watch', source, 'MSI'], { socket: daemon.socket })
    await holding.says('armed')

    holding.kill()
    await holding.outcome

    await until(async () => (await json('spaces')).spaces.length === 0 || undefined)
    expect(await json('info', source)).toMatchObject({ name: source })
  })
})
