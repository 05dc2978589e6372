// Fronts that a service manager starts: a test plays systemd, and the daemon has its fronts by its socket.

import { once } from 'node:events'
import { chownSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { registerMemory } from '../../src/client/verbs.ts'
import { frontUnits } from '../../src/daemon/front-unit.ts'
import { FROM_OWNER, header } from '../../src/link/frames.ts'
import { closeChannels } from '../../src/os/channels.ts'
import { sys } from '../../src/os/libc.ts'
import { memfdCreate } from '../../src/os/memory.ts'
import { DaemonProcess, until } from './daemon-process.ts'
import { FrontSocket } from './front-socket.ts'

let daemon: DaemonProcess
let path: string
let manager: FrontSocket | undefined
const clients: VfiodClient[] = []

const client = (): VfiodClient => {
  const made = connect({ socket: daemon.socket })
  clients.push(made)
  return made
}

const front = async (): Promise<number> => {
  let found: number | undefined
  await until(() => {
    found = manager?.running[0]?.front
    return found !== undefined
  })
  return found as number
}

const childrenOf = (pid: number | undefined): string =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()

beforeEach(() => {
  daemon = new DaemonProcess()
  path = join(daemon.directory, 'front.sock')
})
afterEach(async () => {
  for (const made of clients.splice(0)) made.close()
  await manager?.close()
  manager = undefined
  await daemon.remove()
})

describe('a daemon with front_socket', () => {
  test('serves calls and fds by fronts of units, and has no child', async () => {
    manager = new FrontSocket(path)
    await daemon.start({ front_socket: path })
    const memfd = memfdCreate('unit', 4096n)

    const reply = await registerMemory(client(), { memoryId: 'm', fd: memfd })
    sys.closeSync(memfd)

    expect(reply).toMatchObject({ ok: true })
    expect(manager.units).toHaveLength(1)
    expect(childrenOf(daemon.pid)).toBe('')
    expect(daemon.logged('ready')).toMatchObject([{ fronts: 'units' }])
  })

  test('loses the connections of a front that is killed, and nothing that a client owns', async () => {
    manager = new FrontSocket(path)
    await daemon.start({ front_socket: path })
    const first = client()
    await first.addressSpace.createSpace({ spaceId: 'kept' })
    const watching = async () => {
      for await (const _ of first.ownership.watchEvents());
    }
    const watch = watching()
    watch.catch(() => undefined)
    const [unit] = manager.running

    process.kill(await front(), 'SIGKILL')

    await expect(watch).rejects.toMatchObject({ status: 'UNAVAILABLE' })
    await unit?.ended
    const { spaces } = await client().addressSpace.listSpaces()
    expect(spaces).toMatchObject([{ spaceId: 'kept' }])
    await until(() => daemon.logged('front exited').length === 1)
  })

  test('closes connections while nothing listens there, says so, and serves again when something does', async () => {
    manager = new FrontSocket(path)
    await daemon.start({ front_socket: path })
    manager.stopListening()

    const refused = client().ownership.whoAmI()

    await expect(refused).rejects.toMatchObject({ status: 'UNAVAILABLE' })
    await until(() => daemon.logged('front not started').length > 0)
    expect(daemon.logged('front not started')[0]).toMatchObject({
      level: 'error',
      why: `Cannot start a front by ${path}: ENOENT; start vfiod-front.socket, or unset front_socket`,
    })
    expect(childrenOf(daemon.pid)).toBe('')
    manager = new FrontSocket(path)
    await expect(client().ownership.whoAmI()).resolves.toBeDefined()
  })

  test('leaves no front behind when it is killed', async () => {
    manager = new FrontSocket(path)
    await daemon.start({ front_socket: path })
    await client().ownership.whoAmI()
    const [unit] = manager.running

    daemon.signal('SIGKILL')

    await unit?.ended
  })

  test.each([
    ['ENOENT', () => undefined],
    ['it is not a socket', () => writeFileSync(path, '')],
  ])('does not start where it finds none: %s', async (why, prepare) => {
    prepare()

    expect(await daemon.run({ front_socket: path })).toBe(78)
    expect(daemon.stderr).toContain(`Cannot start fronts by ${path}: ${why}`)
    expect(existsSync(daemon.socket)).toBe(false)
  })

  test.runIf(process.getuid?.() === 0)('does not start where another user listens', async () => {
    manager = new FrontSocket(path)
    chownSync(path, 1000, 1000)

    expect(await daemon.run({ front_socket: path })).toBe(78)
    expect(daemon.stderr).toContain('it belongs to uid 1000')
  })
})

describe('a front of a unit', () => {
  test('is ended with its connection, also where it hangs', async () => {
    manager = new FrontSocket(path)
    const exited: string[] = []
    const { kill, ...channels } = frontUnits(path)((how) => exited.push(how))
    const pid = await front()
    // It is asked and answers: it has its link.
    channels.outgoing.write(header(FROM_OWNER.ping, { connection: 0, call: 0 }, 0))
    await once(channels.incoming, 'data')
    process.kill(pid, 'SIGSTOP')

    kill()

    await manager.units[0]?.ended
    expect(existsSync(`/proc/${pid}`)).toBe(false)
    await until(() => exited.length === 1)
    closeChannels(channels)
  })

  test('that is to be killed before it has its link ends when it comes to it', async () => {
    manager = new FrontSocket(path)
    const exited: string[] = []
    const { kill, ...channels } = frontUnits(path)((how) => exited.push(how))

    kill()
    closeChannels(channels)

    await until(() => exited.length === 1)
    await manager.units[0]?.ended
  })

  test('that its manager does not start has ended when the manager closes the connection', async () => {
    manager = new FrontSocket(path, { startsPrograms: false })
    const exited: string[] = []
    const { kill, ...channels } = frontUnits(path)((how) => exited.push(how))
    const hasEnded = new Promise((resolve) => channels.incoming.once('close', resolve))
    channels.incoming.resume()
    await until(() => manager?.accepted.length === 1)

    await manager.close()

    await hasEnded
    await until(() => exited.length === 1)
    kill()
    closeChannels(channels)
  })
})
