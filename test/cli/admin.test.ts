// The commands for administrators, and whoami and events: the messages of the API, and what they do.

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Daemon, ended, startDaemon, until } from '../system/world.ts'
import { type Outcome, run, start } from './vfioctl.ts'

// Each run is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const EDU_GROUP = '3'

let daemon: Daemon

const vfioctl = (...args: string[]): Promise<Outcome> => run(args, { socket: daemon.socket })

const json = async (...args: string[]) => {
  const { code, stdout, stderr } = await vfioctl(...args, '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return JSON.parse(stdout)
}

const hold = async () => {
  const holding = start(['map', '--group', EDU_GROUP, '--length', '4K', '--hold'], {
    socket: daemon.socket,
  })
  await holding.says('Ctrl-C ends')
  return holding
}

const clientThatHolds = async (): Promise<string> => {
  const { clients } = await daemon.client().admin.listClients()
  return clients.find(({ spaceIds }) => spaceIds.length > 0)?.clientId ?? ''
}

beforeAll(async () => {
  daemon = await startDaemon()
  await vfioctl('bind', '0000:00:04.0')
})
afterAll(async () => {
  await daemon.stop()
})

describe('--json', () => {
  test('prints the messages of the API', async () => {
    const { admin } = daemon.client()

    expect(await json('usage')).toEqual(await admin.getUsage())
    expect(await json('config')).toEqual(await admin.getConfiguration())
    expect(await json('whoami')).toMatchObject({ role: 'ROLE_ADMIN', leaseMs: 0 })
    expect((await json('clients')).clients).toContainEqual(
      expect.objectContaining({ pid: process.pid, spaceIds: [] }),
    )
  })
})

describe('vfioctl health', () => {
  test('says that the daemon serves, and fails with 1 where no daemon answers', async () => {
    expect(await json('health')).toEqual({ serving: true })

    const { code, stderr } = await run(['health'], { socket: `${daemon.socket}.none` })
    expect(code).toBe(1)
    expect(stderr).toContain('Cannot reach the daemon')
  })
})

describe('vfioctl release, events', () => {
  test('release ends what a client owns, and events says who and why', async () => {
    const events = start(['events', '--events', '1'], { socket: daemon.socket })
    await events.says('Watching; Ctrl-C ends.')
    const holding = await hold()

    const clientId = await clientThatHolds()
    const released = await json('release', clientId)

    expect(released).toEqual({ clientId, released: true })
    expect(await json('spaces')).toEqual({ spaces: [] })
    const { code, stdout } = await events.outcome
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /^released: pid \d+ \(vfioctl\), uid \d+: released by uid \d+ \(address spaces: 1, memories: 1\)$/m,
    )
    holding.kill()
    await holding.outcome
  })

  test('events --json prints one event per line, and ends with 0 on Ctrl-C', async () => {
    const events = start(['events', '--json'], { socket: daemon.socket })
    await events.says('watching')
    const holding = await hold()
    holding.kill()
    await events.says('EVENT_KIND_RELEASED')
    events.interrupt()

    const { code, stdout } = await events.outcome
    const lines = stdout.trimEnd().split('\n')
    expect(code).toBe(0)
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { watching: true },
      {
        happened: {
          kind: 'EVENT_KIND_RELEASED',
          why: expect.stringContaining('has exited'),
          spaces: 1,
        },
      },
    ])
  })

  test('clients and spaces show what waits for its token, and release takes it', async () => {
    const { code } = await vfioctl(
      'map',
      '--group',
      EDU_GROUP,
      '--length',
      '4K',
      '--hand-over',
      '600000',
    )
    expect(code).toBe(0)
    const absent = await until(async () =>
      (await daemon.client().admin.listClients()).clients.find(({ gone }) => gone),
    )

    const [clients, spaces, refused] = await Promise.all([
      vfioctl('clients'),
      vfioctl('spaces'),
      vfioctl('map', '--group', EDU_GROUP, '--length', '4K'),
    ])
    const released = await json('release', absent.clientId)

    expect(absent).toMatchObject({ role: 'ROLE_UNSPECIFIED', memoryIds: [expect.any(String)] })
    expect(absent.waitsMs).toBeGreaterThan(0)
    expect(clients.stdout).toMatch(
      new RegExp(
        `^${absent.clientId}: pid ${absent.pid} .*, gone; waits \\d+ s for its token$`,
        'm',
      ),
    )
    expect(spaces.stdout).toMatch(/ gone; waits \d+ s for its token$/m)
    expect(refused.stderr).toContain(`have an administrator release client ${absent.clientId}`)
    expect(released).toEqual({ clientId: absent.clientId, released: true })
    expect(await json('spaces')).toEqual({ spaces: [] })
  })

  test('release of a client that is not there names it: BAD_ARGUMENT', async () => {
    const { code, stderr } = await vfioctl('release', 'nobody-0')

    expect(code).toBe(1)
    expect(stderr).toContain('Cannot release "nobody-0": there is no such client')
    expect(stderr).toContain('BAD_ARGUMENT')
  })
})

describe('vfioctl drain', () => {
  test('ends the daemon with success', async () => {
    const own = await startDaemon()
    own.process.removeAllListeners('exit')

    const code = await ended(own.process, () => {
      void run(['drain'], { socket: own.socket })
    })

    expect(code).toBe(0)
    await until(() => own.output().includes('stopped'))
    await own.stop()
  })
})
