// The unit files, as systemd reads them. An unknown key is a warning with exit code 0 there, so
// whatever is printed counts as a failure.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { FRONTS_MAX, LINGERING_MAX } from '../../src/api/transport/fronts.ts'
import { HEAP_MIB } from '../../src/daemon/front-process.ts'

const unit = (name: string): string =>
  readFileSync(new URL(`../../systemd/${name}`, import.meta.url), 'utf8')

const UNITS = [
  ...['vfiod.service', 'vfiod-front@.service', 'vfiod-looks.service', 'vfiod-writes.service'],
  ...['vfiod.socket', 'vfiod-front.socket', 'vfiod-looks.socket', 'vfiod-writes.socket'],
]

const version = spawnSync('systemd-analyze', ['--version'])
/** In CI it has to be there: a score that nobody measures is no score. */
const canAnalyze = process.env.CI !== undefined || version.status === 0
/** Each version of systemd counts a little differently; the README names the one it was. */
const isMeasured = version.stdout?.toString().startsWith('systemd 252 ')
const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
/** What the README says, in tenths as --threshold wants it: the unit, and with remote.conf. */
const [, score = '', remoteScore = ''] =
  /rates the unit (\d\.\d)[\s\S]*?(\d\.\d)\s+with\s+`?remote\.conf/.exec(readme) ?? []

/** The same for a front. */
const [, frontScore = ''] = /fronts\s+(\d\.\d)/.exec(readme) ?? []

const directory = mkdtempSync(join(tmpdir(), 'vfiod-units-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** verify looks for the programs, which are not installed where tests run; Node stands in for them. */
const copies = (): string[] =>
  UNITS.map((name) => {
    const copy = join(directory, name)
    writeFileSync(copy, unit(name).replace(/\/usr\/bin\/vfiod(-front|-host)?/, process.execPath))
    return copy
  })

/** Passes when the unit is no more exposed than this, as `2.0`. */
const security = (service: string, score: string) =>
  spawnSync('systemd-analyze', [
    'security',
    '--offline=true',
    `--threshold=${score.replace('.', '')}`,
    service,
  ]).status

const tenthLess = (score: string): string => (Number(score) - 0.1).toFixed(1)

describe.runIf(canAnalyze)('systemd-analyze', () => {
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

  test('security rates the unit no worse than the README says', () => {
    const [service = ''] = copies()

    expect(security(service, score)).toBe(0)
    if (isMeasured) expect(security(service, tenthLess(score))).not.toBe(0)
  })

  test('security rates the unit of fronts no worse than the README says', () => {
    const front = copies().find((path) => path.includes('vfiod-front@')) ?? ''

    expect(security(front, frontScore)).toBe(0)
    if (isMeasured) expect(security(front, tenthLess(frontScore))).not.toBe(0)
  })

  test('security rates the daemon and its helpers 1.5 at most', () => {
    const services = copies().filter((path) => path.endsWith('.service'))

    expect(services.map((service) => [service, security(service, '1.5')])).toEqual(
      services.map((service) => [service, 0]),
    )
  })

  test('security rates it with remote.conf no worse than the README says', () => {
    const [service = ''] = copies()
    mkdirSync(`${service}.d`, { recursive: true })
    writeFileSync(join(`${service}.d`, 'remote.conf'), unit('remote.conf'))

    const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', service])
    const statuses = [security(service, remoteScore), security(service, tenthLess(remoteScore))]
    rmSync(`${service}.d`, { recursive: true })

    expect(stderr.toString()).toBe('')
    expect(statuses[0]).toBe(0)
    if (isMeasured) expect(statuses[1]).not.toBe(0)
  })
})

describe('vfiod.service', () => {
  const service = unit('vfiod.service')

  test.each([
    ['Type=notify', 'it says when it is ready'],
    ['NotifyAccess=main', 'and nobody says it instead'],
    ['LimitMEMLOCK=infinity', 'type1 pins memory'],
    ['SystemCallFilter=@system-service @pkey', 'V8 allocates protection keys'],
    ['MALLOC_MMAP_THRESHOLD_=33554432', 'freed chunks are used again'],
    ['MALLOC_TRIM_THRESHOLD_=536870912', 'freed chunks are used again'],
    ['UV_THREADPOOL_SIZE=64', 'calls that sleep take a thread'],
    ['ExecReload=/bin/kill -HUP $MAINPID', 'it reads its policy and certificates again'],
    ['RuntimeDirectory=vfiod', 'the sockets are in /run/vfiod'],
  ])('has %s: %s', (line) => {
    expect(service).toContain(line)
  })

  test.each(['vfio', 'vfio_pci', 'vfio_iommu_type1', 'iommufd'])(
    'loads %s first: what DeviceAllow names is there only then',
    (module) => {
      for (const key of ['Wants', 'After'])
        expect(service).toMatch(new RegExp(`^${key}=.*\\bmodprobe@${module}\\.service\\b`, 'm'))
    },
  )

  test('has no right to trace, to pass over permissions, or to write to /sys', () => {
    expect(service).toMatch(/^CapabilityBoundingSet=CAP_CHOWN CAP_IPC_LOCK$/m)
    expect(service).toMatch(/^ProtectKernelTunables=yes$/m)
    expect(service).not.toMatch(/^ReadWritePaths=/m)
  })

  test('does not have MemoryDenyWriteExecute, which ends V8', () => {
    expect(service).not.toMatch(/^MemoryDenyWriteExecute=yes/m)
  })
})

describe('the units of fronts', () => {
  const [owner, socket, front] = [
    'vfiod.service',
    'vfiod-front.socket',
    'vfiod-front@.service',
  ].map(unit) as [string, string, string]
  const settingOf = (text: string, key: string): string =>
    new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1] ?? ''

  test('are reached by the daemon where they listen, and come with it', () => {
    const path = settingOf(socket, 'ListenSequentialPacket')

    expect(owner).toContain(`\nEnvironment=VFIOD_FRONT_SOCKET=${path}\n`)
    for (const key of ['Wants', 'After'])
      expect(owner).toMatch(new RegExp(`^${key}=vfiod-front\\.socket$`, 'm'))
  })

  test('are one for each connection, of root alone, and no client can make the socket fail', () => {
    expect(settingOf(socket, 'Accept')).toBe('yes')
    expect(settingOf(socket, 'SocketMode')).toBe('0600')
    expect(settingOf(socket, 'TriggerLimitIntervalSec')).toBe('0')
    expect(Number(settingOf(socket, 'MaxConnections'))).toBeGreaterThan(FRONTS_MAX * LINGERING_MAX)
    expect(settingOf(front, 'StartLimitIntervalSec')).toBe('0')
  })

  test.each([
    ['DynamicUser', 'yes'],
    ['PrivateUsers', 'yes'],
    ['CapabilityBoundingSet', ''],
    ['NoNewPrivileges', 'yes'],
    ['PrivateDevices', 'yes'],
    ['PrivateNetwork', 'yes'],
    ['RestrictAddressFamilies', 'none'],
    ['ProtectProc', 'invisible'],
    ['OOMScoreAdjust', '500'],
    ['LimitCORE', '0'],
    ['CollectMode', 'inactive-or-failed'],
    ['KillSignal', 'SIGKILL'],
  ])('have %s=%s', (key, value) => {
    expect(front).toMatch(new RegExp(`^${key}=${value}$`, 'm'))
  })

  test('have no io_uring, which seccomp does not see', () => {
    expect(front).toMatch(/^SystemCallFilter=~.*@aio\b/m)
  })

  test('have as much heap as fronts that the daemon starts', () => {
    const program = readFileSync(new URL('../../bin/vfiod-front', import.meta.url), 'utf8')

    expect(program).toContain(`--max-old-space-size=${HEAP_MIB} `)
  })
})

test('vfiod.socket listens where the configuration says by default', () => {
  expect(unit('vfiod.socket')).toContain('ListenStream=/run/vfiod/vfiod.sock')
  expect(unit('vfiod.socket')).toContain('ListenSequentialPacket=/run/vfiod/fds.sock')
})

describe('a helper of vfiod.service', () => {
  test.each([
    ['looks', 'CAP_SYS_PTRACE CAP_DAC_READ_SEARCH'],
    ['writes', ''],
  ])('for %s has the rights "%s" and is where the daemon asks it', (what, rights) => {
    const [service, socket] = [unit(`vfiod-${what}.service`), unit(`vfiod-${what}.socket`)]
    const [, path = ''] = /^ListenSequentialPacket=(.*)$/m.exec(socket) ?? []

    expect(/^CapabilityBoundingSet=(.*)$/m.exec(service)?.[1]).toBe(rights)
    expect(service).toContain(`ExecStart=/usr/bin/vfiod-host ${what}\n`)
    expect(socket).toMatch(/^SocketMode=0600$/m)
    expect(unit('vfiod.service')).toContain(`VFIOD_${what.toUpperCase()}_SOCKET=${path}\n`)
  })

  test('for writes alone can write to /sys, and there to two folders', () => {
    expect(unit('vfiod-writes.service')).toMatch(/^ReadWritePaths=\/sys\/bus \/sys\/devices$/m)
    expect(unit('vfiod-looks.service')).toMatch(/^ProtectKernelTunables=yes$/m)
    expect(unit('vfiod-looks.service')).not.toMatch(/^ReadWritePaths=/m)
  })
})
