// The configuration: where its values come from, what is refused, and that the document tells the
// truth about it.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import {
  configSchema,
  configText,
  DEFAULT_FILE,
  ENVIRONMENT,
  loadConfig,
  type Overrides,
} from '../../src/daemon/config.ts'
import { ConfigError } from '../../src/daemon/config-error.ts'
import { groupNumber } from '../../src/daemon/names.ts'

const directory = mkdtempSync(join(tmpdir(), 'vfiod-config-'))
afterAll(() => rmSync(directory, { recursive: true }))

const NO_FLAGS: Overrides = {
  config: undefined,
  socket: undefined,
  sim: undefined,
  logLevel: undefined,
  trace: undefined,
}

const load = (
  toml: string,
  flags: Partial<Overrides> = {},
  env: Readonly<Record<string, string>> = {},
) => {
  const file = join(directory, 'vfiod.toml')
  writeFileSync(file, toml)
  return loadConfig({ ...NO_FLAGS, config: file, ...flags }, env)
}

describe('the configuration', () => {
  test('as text is a configuration, and the same one', () => {
    const config = load('socket_mode = "0600"\nlisten = "[::1]:7443"\nsocket_group = "daemon"')

    expect(load(configText(config))).toEqual(config)
  })

  test('has a default for everything', () => {
    expect(load('')).toEqual({
      socket: '/run/vfiod/vfiod.sock',
      fd_socket: '/run/vfiod/fds.sock',
      socket_mode: 0o660,
      backend: 'linux',
      log_level: 'info',
      log_format: 'auto',
      audit: 'log',
      lease_ms: 30_000,
      drain_ms: 10_000,
    })
  })

  test('takes the file over the default', () => {
    expect(load('log_level = "debug"\nsocket_mode = "0600"')).toMatchObject({
      log_level: 'debug',
      socket_mode: 0o600,
    })
  })

  test('takes the environment over the file', () => {
    const config = load('log_level = "debug"', {}, { VFIOD_LOG_LEVEL: 'warn' })

    expect(config.log_level).toBe('warn')
  })

  test.each([
    ['', undefined],
    ['/run/other.sock', '/run/other.sock'],
  ])('takes VFIOD_FRONT_SOCKET=%s, where it says something', (value, expected) => {
    expect(load('', {}, { VFIOD_FRONT_SOCKET: value }).front_socket).toBe(expected)
  })

  test('takes a flag over the environment', () => {
    const env = { VFIOD_SOCKET: '/tmp/env.sock', VFIOD_LOG_LEVEL: 'warn' }

    expect(load('', { socket: '/tmp/flag.sock' }, env)).toMatchObject({
      socket: '/tmp/flag.sock',
      log_level: 'warn',
    })
  })

  test('puts the fd socket beside the socket', () => {
    expect(load('', { socket: '/tmp/x/vfiod.sock' }).fd_socket).toBe('/tmp/x/fds.sock')
  })

  test('makes relative paths of flags absolute', () => {
    expect(load('', { socket: 'here.sock' }).socket).toBe(join(process.cwd(), 'here.sock'))
  })

  test('of --sim alone is the simulator without a machine file', () => {
    const config = load('', { sim: true })

    expect(config.backend).toBe('sim')
    expect(config.machine).toBeUndefined()
  })

  test.each([
    ['--sim=FILE', { sim: '/m.toml' }, {}],
    ['VFIOD_SIM=FILE', {}, { VFIOD_SIM: '/m.toml' }],
  ])('of %s is the simulator with that machine', (_name, flags, env) => {
    expect(load('', flags, env)).toMatchObject({ backend: 'sim', machine: '/m.toml' })
  })

  test.each([
    ['--trace', { trace: true }, {}, 'stderr'],
    ['--trace=FILE', { trace: '/t.txt' }, { VFIOD_TRACE: '1' }, '/t.txt'],
    ['VFIOD_TRACE=1', {}, { VFIOD_TRACE: '1' }, 'stderr'],
    ['VFIOD_TRACE=FILE', {}, { VFIOD_TRACE: '/t.txt' }, '/t.txt'],
    ['VFIOD_TRACE=0', {}, { VFIOD_TRACE: '0' }, undefined],
  ])('of %s is a trace of the calls to the kernel', (_name, flags, env, trace) => {
    expect(load('', flags, env).trace).toBe(trace)
  })

  test('does without a file when none is named and the default one is not there', () => {
    expect(DEFAULT_FILE).toBe('/etc/vfiod/vfiod.toml')
    expect(loadConfig(NO_FLAGS, {}).backend).toBe('linux')
  })
})

describe('a refused configuration', () => {
  test.each([
    ['an unknown key', 'sokcet = "/x"', 'sokcet'],
    ['a relative socket', 'socket = "x.sock"', 'absolute'],
    ['a mode that is not octal', 'socket_mode = "0680"', 'octal'],
    ['an unknown backend', 'backend = "windows"', 'backend'],
    ['a trace that is nowhere', 'trace = "here.txt"', 'trace'],
    ['a negative time', 'drain_ms = -1', 'drain_ms'],
    ['TOML that is none', 'socket = ', 'vfiod.toml'],
  ])('names %s', (_name, toml, named) => {
    expect(() => load(toml)).toThrow(ConfigError)
    expect(() => load(toml)).toThrow(named)
  })

  test('names the file that was asked for and is not there', () => {
    const flags = { ...NO_FLAGS, config: '/nowhere/vfiod.toml' }

    expect(() => loadConfig(flags, {})).toThrow('Cannot read /nowhere/vfiod.toml: ENOENT')
  })

  test('names a log level of the environment that there is not', () => {
    expect(() => load('', {}, { VFIOD_LOG_LEVEL: 'loud' })).toThrow('log_level')
  })
})

describe('socket_group', () => {
  test('is a name of /etc/group, or a number', () => {
    expect(groupNumber('root')).toBe(0)
    expect(groupNumber('123')).toBe(123)
  })

  test('that does not exist is refused by name', () => {
    expect(() => groupNumber('no-such-group')).toThrow('"no-such-group"')
  })
})

describe('docs/configuration.md', () => {
  const document = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8')

  test('has a row for every key, as the schema describes it, and no other', () => {
    const defaults = configSchema.parse({}) as Record<string, unknown>
    const shown = (key: string): string => {
      const value = key === 'socket_mode' ? '0660' : defaults[key]
      return value === undefined ? '' : `\`${value}\` `
    }
    const rows = Object.entries(configSchema.shape).map(
      ([key, schema]) => `| \`${key}\` | ${shown(key)}| ${schema.description} |`,
    )

    expect(document.match(/^\| `[a-z_]+` \|.*$/gm)).toEqual(rows)
  })

  test('has no key that the daemon does not read', () => {
    const daemon = new URL('../../src/daemon/', import.meta.url)
    const text = readdirSync(daemon)
      .filter((file) => file !== 'config.ts')
      .map((file) => readFileSync(new URL(file, daemon), 'utf8'))
      .join('\n')
    const unread = Object.keys(configSchema.shape).filter(
      (key) => !new RegExp(`\\b${key}\\b`).test(text),
    )

    expect(unread).toEqual([])
  })

  test('names every environment variable and every flag', () => {
    for (const name of Object.values(ENVIRONMENT)) expect(document).toContain(`\`${name}\``)
    for (const flag of ['--config', '--socket', '--sim', '--log-level'])
      expect(document).toContain(`\`${flag}`)
  })

  test('shows an example that is valid', () => {
    const [, example = ''] = /```toml\n([\s\S]*?)```/.exec(document) ?? []

    expect(load(example)).toMatchObject({ socket_group: 'kvm' })
  })
})
