// The unit files, as systemd reads them. An unknown key is a warning with exit code 0 there, so
// whatever is printed counts as a failure.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'

const unit = (name: string): string =>
  readFileSync(new URL(`../../systemd/${name}`, import.meta.url), 'utf8')

const version = spawnSync('systemd-analyze', ['--version'])
/** In CI it has to be there: a score that nobody measures is no score. */
const canAnalyze = process.env.CI !== undefined || version.status === 0
/** Each version of systemd counts a little differently; the README names the one it was. */
const isMeasured = version.stdout?.toString().startsWith('systemd 252 ')
const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
/** What the README says, in tenths as --threshold wants it: the unit, and with remote.conf. */
const [, score = '', remoteScore = ''] =
  /rates the unit (\d\.\d)[\s\S]*?(\d\.\d)\s+with\s+`?remote\.conf/.exec(readme) ?? []

const directory = mkdtempSync(join(tmpdir(), 'vfiod-units-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** verify looks for the program, which is not installed where tests run; Node stands in for it. */
const copies = (): string[] =>
  ['vfiod.service', 'vfiod.socket'].map((name) => {
    const copy = join(directory, name)
    writeFileSync(copy, unit(name).replace('/usr/bin/vfiod', process.execPath))
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
    ['SystemCallFilter=@system-service @pkey seccomp', 'Node 20 allocates protection keys'],
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

  test('does not have MemoryDenyWriteExecute, which ends V8', () => {
    expect(service).not.toMatch(/^MemoryDenyWriteExecute=yes/m)
  })
})

test('vfiod.socket listens where the configuration says by default', () => {
  expect(unit('vfiod.socket')).toContain('ListenStream=/run/vfiod/vfiod.sock')
  expect(unit('vfiod.socket')).toContain('ListenSequentialPacket=/run/vfiod/fds.sock')
})
