// The daemon as a process: how it starts, what it says, and how it ends.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { exportMemory } from '../../src/client/verbs.ts'
import { sys } from '../../src/os/libc.ts'
import { unwatch, watch } from '../../src/os/poller.ts'
import { listenUnix, receiveMessage, SOCK_DGRAM, SOCK_SEQPACKET } from '../../src/os/unix-socket.ts'

const MAIN = fileURLToPath(new URL('../../dist/daemon/main.js', import.meta.url))

let directory: string
const children: ChildProcess[] = []
const clients: VfiodClient[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfiod-main-'))
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.close()
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  rmSync(directory, { recursive: true })
})

const socketPath = (): string => join(directory, 'vfiod.sock')

interface Daemon {
  readonly child: ChildProcess
  readonly stdout: () => string
  readonly stderr: () => string
  /** The exit code, and null for a signal. */
  readonly exit: Promise<number | null>
}

const keep = (child: ChildProcess): Daemon => {
  children.push(child)
  const output = { stdout: '', stderr: '' }
  child.stdout?.on('data', (bytes) => {
    output.stdout += bytes
  })
  child.stderr?.on('data', (bytes) => {
    output.stderr += bytes
  })
  return {
    child,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    exit: once(child, 'close').then(([code]) => code),
  }
}

const start = (args: readonly string[], env: NodeJS.ProcessEnv = {}): Daemon =>
  keep(spawn(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env } }))

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

const ready = async (daemon: Daemon): Promise<void> => {
  await Promise.race([
    until(() => daemon.stdout().includes('vfiod: ready on ')),
    daemon.exit.then((code) => {
      throw new Error(`ended with ${code}: ${daemon.stderr()}`)
    }),
  ])
}

const startSim = async (
  args: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Daemon> => {
  const daemon = start(['--sim', '--socket', socketPath(), ...args], env)
  await ready(daemon)
  return daemon
}

const client = (): VfiodClient => {
  const made = connect({ socket: socketPath() })
  clients.push(made)
  return made
}

const logLines = (daemon: Daemon): Record<string, unknown>[] =>
  daemon
    .stderr()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('a start', () => {
  test('is announced on standard output, with the socket', async () => {
    const daemon = await startSim()

    expect(daemon.stdout()).toBe(`vfiod: ready on ${socketPath()}\n`)
    const { groups } = await client().inventory.listGroups()
    expect(groups.length).toBeGreaterThan(0)
  })

  test('is announced to the service manager, and the end as well', async () => {
    const manager = listenUnix(SOCK_DGRAM, join(directory, 'notify'))
    const told: string[] = []
    watch(manager, () => {
      const message = receiveMessage(manager)
      if (typeof message !== 'number') told.push(Buffer.from(message.bytes).toString())
    })

    const daemon = await startSim([], { NOTIFY_SOCKET: join(directory, 'notify') })
    daemon.child.kill('SIGTERM')
    await daemon.exit

    await until(() => told.length === 2)
    expect(told[0]).toBe(`READY=1\nSTATUS=serving ${socketPath()}`)
    expect(told[1]).toMatch(/^STOPPING=1\nSTATUS=/)
    unwatch(manager)
    sys.closeSync(manager)
  })

  test('is followed by a sign of life to the service manager, again and again', async () => {
    const manager = listenUnix(SOCK_DGRAM, join(directory, 'notify'))
    const told: string[] = []
    watch(manager, () => {
      const message = receiveMessage(manager)
      if (typeof message !== 'number') told.push(Buffer.from(message.bytes).toString())
    })
    const signs = () => told.filter((each) => each === 'WATCHDOG=1').length
    const env = { NOTIFY_SOCKET: join(directory, 'notify'), WATCHDOG_USEC: '30000' }

    const daemon = await startSim([], env)
    await until(() => signs() >= 3)
    daemon.child.kill('SIGTERM')

    expect(await daemon.exit).toBe(0)
    unwatch(manager)
    sys.closeSync(manager)
  })

  test('on sockets of the service manager uses them, and leaves them to it', async () => {
    const SOCK_STREAM = 1 as typeof SOCK_SEQPACKET
    const grpc = listenUnix(SOCK_STREAM, socketPath())
    const fds = listenUnix(SOCK_SEQPACKET, join(directory, 'fds.sock'))
    // The number of the process has to be in its environment, so a shell writes it there.
    const script = 'LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"'
    const command = [process.execPath, MAIN, '--sim', '--socket', socketPath()]

    const daemon = keep(
      spawn('/bin/sh', ['-c', script, 'sh', ...command], {
        stdio: ['ignore', 'pipe', 'pipe', grpc, fds],
      }),
    )
    await ready(daemon)
    const own = client()
    await own.memory.allocateMemory({ memoryId: 'm', length: '4096' })
    const received = await exportMemory(own, 'm')
    daemon.child.kill('SIGTERM')

    expect(received).toBeGreaterThan(2)
    expect(await daemon.exit).toBe(0)
    expect(existsSync(socketPath())).toBe(true)
    for (const fd of [received, grpc, fds]) sys.closeSync(fd)
  })

  test('on the socket of another daemon fails, and leaves that one alone', async () => {
    await startSim()

    const second = start(['--sim', '--socket', socketPath()])

    expect(await second.exit).toBe(70)
    expect(second.stderr()).toContain('another process listens there')
    await expect(client().inventory.listGroups()).resolves.toBeDefined()
  })

  test('with a configuration that is wrong says what, and ends with EX_CONFIG', async () => {
    const file = join(directory, 'vfiod.toml')
    writeFileSync(file, 'sokcet = "/tmp/x"\n')

    const daemon = start(['--config', file])

    expect(await daemon.exit).toBe(78)
    expect(daemon.stderr()).toContain('sokcet')
    expect(daemon.stderr()).not.toContain('    at ')
  })

  test('with a flag that there is not ends with 1', async () => {
    expect(await start(['--loud']).exit).toBe(1)
  })

  test('with --version prints it and ends', async () => {
    const daemon = start(['--version'])
    const { version } = JSON.parse(
      readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
    )

    expect(await daemon.exit).toBe(0)
    expect(daemon.stdout()).toBe(`${version}\n`)
  })

  test('by its own name has a pool for calls that sleep, on every Node', () => {
    const [line] = readFileSync(MAIN, 'utf8').split('\n')

    expect(line).toBe('#!/usr/bin/env -S UV_THREADPOOL_SIZE=64 node')
  })
})

describe('the log', () => {
  test('is one JSON object per line: readiness, calls, the end', async () => {
    const daemon = await startSim(['--log-level', 'debug'])
    await client().inventory.listGroups()
    daemon.child.kill('SIGTERM')
    await daemon.exit

    const lines = logLines(daemon)
    expect(lines.map(({ msg }) => msg)).toEqual(['ready', 'call', 'stopping', 'stopped'])
    expect(lines[1]).toMatchObject({
      level: 'debug',
      method: 'vfiod.v1.InventoryService/ListGroups',
      client: expect.any(String),
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    })
  })

  test('has nothing below its level', async () => {
    const daemon = await startSim(['--log-level', 'error'])
    await client().inventory.listGroups()
    daemon.child.kill('SIGTERM')
    await daemon.exit

    expect(daemon.stderr()).toBe('')
  })
})

describe.each(['SIGTERM', 'SIGINT'] as const)('%s', (signal) => {
  test('ends the daemon with 0, and removes its sockets', async () => {
    const daemon = await startSim()

    daemon.child.kill(signal)

    expect(await daemon.exit).toBe(0)
    expect(existsSync(socketPath())).toBe(false)
    expect(existsSync(join(directory, 'fds.sock'))).toBe(false)
  })
})

describe('SIGTERM', () => {
  test('ends the daemon with 0 when the reader of its log is gone', async () => {
    const daemon = await startSim()
    daemon.child.stderr?.destroy()

    daemon.child.kill('SIGTERM')

    expect(await daemon.exit).toBe(0)
  })

  test('releases what clients own, and ends their watches with DRAINING', async () => {
    const daemon = await startSim()
    const { addressSpace, inventory } = client()
    await addressSpace.createSpace({ spaceId: 's' })
    let failure: unknown
    let hasBegun = false
    const watching = (async () => {
      for await (const _event of inventory.watchGroups()) hasBegun = true
    })().catch((error: unknown) => {
      failure = error
    })
    await until(() => hasBegun)

    daemon.child.kill('SIGTERM')

    expect(await daemon.exit).toBe(0)
    await watching
    expect(failure).toMatchObject({ status: 'UNAVAILABLE', reason: 'DRAINING' })
    expect(logLines(daemon)).toContainEqual(expect.objectContaining({ msg: 'released', spaces: 1 }))
  })

  test('waits for a call that is under way; a second one does not', async () => {
    const daemon = await startSim()
    const { addressSpace, device, inventory, migration } = client()
    const name = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001'
    const groupId = (await inventory.getDevice({ name })).device?.groupId ?? 0
    await addressSpace.createSpace({ spaceId: 's' })
    await addressSpace.addGroup({ spaceId: 's', groupId })
    await device.openDevice({ spaceId: 's', name })
    await migration.setMigrationState({ name, state: 'MIGRATION_STATE_RESUMING' })
    const upload = migration.writeSession(
      (async function* () {
        yield { name, data: Buffer.of(1) }
        await new Promise(() => undefined)
      })(),
    )
    upload.catch(() => undefined)
    const hasArrived = async () =>
      (await migration.getMigrationState({ name })).session?.bytes === '1'
    while (!(await hasArrived()));

    daemon.child.kill('SIGTERM')
    await until(() => daemon.stderr().includes('"stopping"'))
    await expect(inventory.listGroups()).rejects.toMatchObject({ reason: 'DRAINING' })
    daemon.child.kill('SIGTERM')

    expect(await daemon.exit).toBe(130)
  })
})

describe('SIGKILL', () => {
  test('leaves sockets that the next daemon replaces', async () => {
    const first = await startSim()
    first.child.kill('SIGKILL')
    await first.exit
    expect(existsSync(socketPath())).toBe(true)

    await startSim()

    await expect(client().inventory.listGroups()).resolves.toBeDefined()
  })
})
