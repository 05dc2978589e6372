/** How vfioctl fails: on stderr, in words or as JSON, and with which exit code. */

import { linkSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { CommandDeadline } from '../../src/cli/deadline.ts'
import { type Failure, failureOf, failureText } from '../../src/cli/failure.ts'
import { buildProgram } from '../../src/cli/program.ts'
import { RpcError } from '../../src/client/rpc-error.ts'
import { run, start } from './vfioctl.ts'

// Each run is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000 })

let folder: string
let silent: Server
const nobody = () => join(folder, 'nobody.sock')
const silentSocket = () => join(folder, 'silent.sock')

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vfioctl-errors-'))
  silent = createServer()
  await new Promise<void>((resolve) => silent.listen(silentSocket(), resolve))
})

afterAll(() => {
  silent.close()
  rmSync(folder, { recursive: true })
})

describe('vfioctl without a daemon', () => {
  test('names the socket and what to do, and exits with 1', async () => {
    const { code, stdout, stderr } = await run(['groups', '--socket', nobody()])

    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr.split('\n')[0]).toBe(
      `vfioctl: Cannot reach the daemon on ${nobody()}: connect ENOENT`,
    )
    expect(stderr).toContain('--socket or $VFIOD_SOCKET')
  })

  test('says the same as JSON', async () => {
    const { code, stderr } = await run(['groups', '--json'], { socket: nobody() })

    expect(code).toBe(1)
    expect(JSON.parse(stderr)).toMatchObject({
      error: { status: 'UNAVAILABLE', reason: '', method: 'vfiod.v1.InventoryService/ListGroups' },
    })
  })

  test('fails as well where it is a socket and no process listens', async () => {
    const listener = createServer()
    const path = join(folder, 'left.sock')
    await new Promise<void>((resolve) => listener.listen(join(folder, 'listening.sock'), resolve))
    linkSync(join(folder, 'listening.sock'), path)
    await new Promise((resolve) => listener.close(resolve))

    const { code, stderr } = await run(['groups'], { socket: path })

    expect(code).toBe(1)
    expect(stderr).toContain(`Cannot reach the daemon on ${path}: connect ECONNREFUSED`)
  })

  test('gives up a call on Ctrl-C, and exits with 130', async () => {
    const accepted = new Promise<void>((resolve) => silent.once('connection', () => resolve()))
    const running = start(['devices'], { socket: silentSocket() })
    await accepted
    running.interrupt()

    const { code, stderr } = await running.outcome

    expect(code).toBe(130)
    expect(stderr).toMatch(/^vfioctl: /)
  })
})

describe('vfioctl with a daemon that does not answer', () => {
  test.each([
    ['groups'],
    ['health'],
    ['groups', '--watch'],
    ['events'],
    ['map', '--group', '1', '--length', '4K', '--hold'],
    ['migrate', 'save', '0000:00:04.0', 'never'],
    ['migrate', 'load', '0000:00:04.0', '/dev/null'],
  ])('ends after --timeout and exits with 124: %s %s', async (...args) => {
    const given = args.filter((arg) => arg !== undefined)
    const { code, stdout, stderr } = await run([...given, '--timeout', '50ms'], {
      socket: silentSocket(),
      cwd: folder,
    })

    expect({ code, stdout }).toEqual({ code: 124, stdout: '' })
    expect(stderr.split('\n')[0]).toBe(
      `vfioctl: No answer: the daemon on ${silentSocket()} accepts connections and does not answer (0.05 s)`,
    )
    expect(stderr).toContain('--timeout sets how long to wait')
  })

  test('waits without end for --timeout 0', async () => {
    const accepted = new Promise<void>((resolve) => silent.once('connection', () => resolve()))
    const running = start(['groups', '--timeout', '0'], { socket: silentSocket() })
    await accepted
    running.interrupt()

    expect((await running.outcome).code).toBe(130)
  })

  test('health --wait asks as long as it says, and fails', async () => {
    const { code, stderr } = await run(['health', '--wait', '50ms'], { socket: nobody() })

    expect(code).toBe(1)
    expect(stderr).toContain(`Cannot reach the daemon on ${nobody()}`)
  })
})

describe('a time-out', () => {
  const late = (message: string) =>
    new RpcError({
      method: 'vfiod.v1.AddressSpaceService/Map',
      status: 'DEADLINE_EXCEEDED',
      reason: '',
      message,
      details: {},
    })
  const textOf = (deadline: CommandDeadline, error: unknown, place = '/run/vfiod.sock') =>
    failureText(failureOf(deadline.explained(error, place), place) as Failure)

  test('says so when the daemon has answered other calls', () => {
    const deadline = new CommandDeadline({ ms: 10_000, isForFirst: false })
    deadline.answered()

    expect(textOf(deadline, late(''))).toBe(
      [
        'vfioctl: No answer: the daemon on /run/vfiod.sock answered before, and has not answered vfiod.v1.AddressSpaceService/Map in 10 s',
        '  note        The daemon may still work on the call: --timeout sets how long to wait, and 0 waits without end.',
      ].join('\n'),
    )
  })

  test('tells a remote daemon that is silent from one that cannot be reached', () => {
    const deadline = new CommandDeadline({ ms: 500, isForFirst: false })

    expect(
      textOf(deadline, late('Deadline exceeded after 0.5s,remote_addr=1.2.3.4:1'), 'a:1'),
    ).toContain('the daemon on a:1 accepts connections and does not answer (0.5 s)')
    expect(
      textOf(deadline, late('Deadline exceeded after 0.5s,Waiting for LB pick'), 'a:1'),
    ).toContain('the daemon on a:1 cannot be connected to (0.5 s)')
  })

  test('of a transfer is for the first answer, and again for each call once it is stopped', () => {
    const deadline = new CommandDeadline({ ms: 500, isForFirst: true })
    const before = deadline.answerMs()
    deadline.answered()
    const meanwhile = deadline.answerMs()
    deadline.renew()

    expect([before, meanwhile, deadline.answerMs()]).toEqual([500, undefined, 500])
  })

  test('leaves refusals as they are', () => {
    const refused = new RpcError({
      ...late(''),
      status: 'NOT_FOUND',
      reason: 'NO_SUCH_SPACE',
      message: '',
    })

    expect(new CommandDeadline({ ms: 1, isForFirst: false }).explained(refused, '')).toBe(refused)
  })
})

/** What a command line comes to, without a process of its own. */
const failureIn = async (args: readonly string[]): Promise<Failure | undefined> => {
  const error = await buildProgram()
    .parseAsync(args, { from: 'user' })
    .catch((caught: unknown) => caught)
  return failureOf(error, '')
}

describe('wrong usage of vfioctl', () => {
  test.each([
    [['bogus'], "unknown command 'bogus'"],
    [['groups', '--bogus'], "unknown option '--bogus'"],
    [['bind'], "missing required argument 'device'"],
    [['map', '--group', '3'], "required option '--length <bytes>' not specified"],
    [['region', 'read', 'x', 'BAR0', '12z', '4'], 'A number is needed'],
    [['region', 'read', 'x', 'BAR0', '0', '4', '--width', '3'], 'One of 1, 2, 4, 8'],
    [['groups', '--timeout', 'soon'], 'A duration is needed'],
    [['region', 'write', 'x', 'BAR0', '0'], 'give either VALUE or --in FILE'],
    [['region', 'write', 'x', 'BAR0', '0', '1', '--in', 'y'], 'give either VALUE or --in FILE'],
    [['map', '--group', '3', '--length', '4K', '--access', 'no'], 'Allowed choices are'],
  ])('%j is refused with 2', async (args, message) => {
    const failure = await failureIn(args)

    expect(failure?.exitCode).toBe(2)
    expect(failure?.message).toContain(message)
  })

  test('is said on stderr', async () => {
    const { code, stdout, stderr } = await run(['bogus'])

    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr.split('\n')).toEqual([
      "vfioctl: unknown command 'bogus'",
      '  to do       See vfioctl --help, or --help after a command.',
      '',
    ])
  })

  test('is an object with --json', async () => {
    const { code, stderr } = await run(['bogus', '--json'])

    expect(code).toBe(2)
    expect(JSON.parse(stderr)).toEqual({
      error: { message: "unknown command 'bogus'", reason: 'USAGE' },
    })
  })

  test('shows the help where a command is missing, and exits with 2', async () => {
    const { code, stderr } = await run(['region'])

    expect(code).toBe(2)
    expect(stderr).toContain('Usage: vfioctl region')
  })
})

describe('vfioctl --help and --version', () => {
  test('exit with 0', async () => {
    const help = await run(['map', '--help'])
    const version = await run(['--version'])

    expect([help.code, version.code]).toEqual([0, 0])
    expect(help.stdout).toContain('The mappings of a process belong to it')
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
})
