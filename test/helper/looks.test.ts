// Looks that a helper makes: the same answers as those of this process, whatever becomes of the helper.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { linuxKernel } from '../../src/backends/linux/kernel.ts'
import { ERRNO } from '../../src/base/errno.ts'
import type { HelperLink } from '../../src/helper/helper-link.ts'
import { factsToJson, readFacts } from '../../src/helper/host-facts-json.ts'
import { hostLooksBy, processLooksBy } from '../../src/helper/looks-by-helper.ts'
import { hostFacts } from '../../src/kernel/host-facts.ts'
import {
  connectSeqpacket,
  listenSeqpacket,
  type SeqpacketConnection,
} from '../../src/os/fd-passing.ts'
import { sys } from '../../src/os/libc.ts'
import { openPidfd } from '../../src/os/process.ts'
import { ownLooks, type ProcessPin } from '../../src/os/process-looks.ts'
import { openFds, until } from '../os/fds.ts'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { HelperProcess, linkTo, VERSION } from './helper-process.ts'

let helper: HelperProcess
let link: HelperLink
const children: ChildProcess[] = []
const pidfds: number[] = []

beforeEach(async () => {
  helper = new HelperProcess('looks')
  await helper.start()
  link = linkTo(helper.socket, 'looks')
})
afterEach(async () => {
  link.close()
  for (const child of children.splice(0)) child.kill('SIGKILL')
  for (const fd of pidfds.splice(0)) sys.closeSync(fd)
  await helper.remove()
})

/** A process that waits for a line, and then execs. */
const newProcess = async () => {
  const child = spawn('sh', ['-c', 'echo ready; read x; exec sleep 1000'])
  children.push(child)
  await once(child.stdout, 'data')
  const pid = child.pid as number
  const pidfd = openPidfd(pid)
  pidfds.push(pidfd)
  return { child, pid, pidfd }
}

const pinned = async (process: { pid: number; pidfd: number }): Promise<ProcessPin> => {
  const pin = await processLooksBy(link).pin(process)
  if (typeof pin === 'number') throw new Error(`Cannot pin: errno ${-pin}`)
  return pin
}

describe('a process that a helper looks at', () => {
  test('has the image that a look of this process finds', async () => {
    const at = await newProcess()
    const own = await ownLooks.pin(at)

    const pin = await pinned(at)

    expect(typeof own === 'object' && own.image).toBe(pin.image)
    expect(await pin.look()).toBe('current')
    pin.close()
    expect(await pin.look()).toBe('gone')
  })

  test('is gone when it runs another image', async () => {
    const at = await newProcess()
    const pin = await pinned(at)

    at.child.stdin.write('go\n')

    let found = await pin.look()
    while (found === 'current') found = await pin.look()
    expect(found).toBe('gone')
    pin.close()
  })

  test('that has exited has no address space: gone, and -ESRCH for a new pin', async () => {
    const at = await newProcess()
    const pin = await pinned(at)
    at.child.kill('SIGKILL')
    await once(at.child, 'exit')

    expect(await pin.look()).toBe('gone')
    expect(await processLooksBy(link).pin(at)).toBe(-ERRNO.ESRCH)
    pin.close()
  })

  test('shares its address space with itself, and with no other', async () => {
    const [one, other] = [await newProcess(), await newProcess()]
    const { sameMm } = processLooksBy(link)

    expect(await sameMm(one, one)).toBe(true)
    expect(await sameMm(one, other)).toBe(false)
  })

  test('is looked at as often as is asked without an fd that stays', async () => {
    const at = await newProcess()
    const pin = await pinned(at)
    await pin.look()
    const [here, there] = [openFds(), helper.openFds()]

    await Promise.all(Array.from({ length: 200 }, () => pin.look()))
    for (let n = 0; n < 50; n += 1) (await pinned(at)).close()

    await until(() => helper.openFds() <= there && openFds() <= here)
    pin.close()
  })
})

describe('a helper that is gone', () => {
  test('says nothing of a process: PEER_NOT_CHECKED, and the pin holds with the next helper', async () => {
    const at = await newProcess()
    const pin = await pinned(at)
    await helper.kill()

    await expect(pin.look()).rejects.toMatchObject({ reason: 'PEER_NOT_CHECKED' })
    await expect(processLooksBy(link).pin(at)).rejects.toThrow('ECONNREFUSED')
    await helper.start()

    expect(await pin.look()).toBe('current')
    pin.close()
  })

  test('in the middle of a look refuses the look, and those behind it', async () => {
    const at = await newProcess()
    const pin = await pinned(at)
    helper.signal('SIGSTOP')
    const looks = Array.from({ length: 100 }, () =>
      pin.look().catch((error: { reason: string }) => error.reason),
    )

    await helper.kill()

    expect(new Set(await Promise.all(looks))).toEqual(new Set(['PEER_NOT_CHECKED']))
    await helper.start()
    expect(await pin.look()).toBe('current')
    pin.close()
  })

  test('cannot look at the host: HELPER_UNAVAILABLE', async () => {
    await helper.kill()

    const refused = { reason: 'HELPER_UNAVAILABLE' }
    await expect(hostLooksBy(link).vfioHolders()).rejects.toMatchObject(refused)
    await expect(hostLooksBy(link).hostFacts([])).rejects.toMatchObject(refused)
  })
})

describe('the host that a helper looks at', () => {
  test('has facts, whole: those of this process are the same after the way', async () => {
    const facts = await hostLooksBy(link).hostFacts(['0000:00:00.0'])
    const own = await hostFacts(linuxKernel(), [])

    expect(readFacts(JSON.parse(JSON.stringify(factsToJson(own))))).toEqual(own)
    expect([...new Set([...Object.keys(facts), 'bootConsole'])].sort()).toEqual(
      Object.keys(own).sort(),
    )
    expect('unseen' in facts.networks || facts.networks.routes instanceof Map).toBe(true)
  })

  test('is asked about more functions than fit into a packet, in parts', async () => {
    const functions = Array.from(
      { length: 8000 },
      (_, n) =>
        `0000:${(n >> 8).toString(16).padStart(2, '0')}:${((n >> 3) & 31).toString(16).padStart(2, '0')}.${n & 7}`,
    )

    await expect(hostLooksBy(link).hostFacts(functions)).resolves.toHaveProperty('mounts')
  })

  test('has no file of VFIO open, or says by whom', async () => {
    expect(Array.isArray(await hostLooksBy(link).vfioHolders())).toBe(true)
  })
})

/** A connection past the hello. */
const connected = async (): Promise<SeqpacketConnection> => {
  const connection = connectSeqpacket(helper.socket)
  if (typeof connection === 'number') throw new Error(`errno ${-connection}`)
  await connection.receive()
  return connection
}

const isClosed = async (connection: SeqpacketConnection): Promise<boolean> => {
  const packet = await connection.receive()
  connection.close()
  return typeof packet === 'number' || packet.bytes.length === 0
}

describe('a helper', () => {
  const pidfd = () => {
    const fd = openPidfd(process.pid)
    pidfds.push(fd)
    return fd
  }
  const file = () => {
    const fd = openSync('/dev/null', 'r')
    pidfds.push(fd)
    return fd
  }

  test.each([
    ['bytes', 'junk', []],
    ['no number', '{"look":"vfio-holders"}', []],
    ['a number that is none', '{"id":"1","look":"vfio-holders"}', []],
    ['no look', '{"id":1,"look":"read","path":"/etc/shadow"}', []],
    ['a write', '{"id":1,"write":"drivers_probe","device":"0000:00:04.0"}', []],
    ['a pin without an fd', '{"id":1,"look":"pin"}', []],
    ['a pin with three fds', '{"id":1,"look":"pin"}', [pidfd, pidfd, pidfd]],
    ['fds with a look at the host', '{"id":1,"look":"vfio-holders"}', [pidfd]],
  ] as const)('closes a connection on %s, and serves the others', async (_what, text, fds) => {
    const at = await newProcess()
    const pin = await pinned(at)
    const before = helper.openFds()
    const liar = await connected()

    liar.send(
      Buffer.from(text),
      fds.map((open) => open()),
    )

    expect(await isClosed(liar)).toBe(true)
    expect(await pin.look()).toBe('current')
    await until(() => helper.openFds() <= before)
    pin.close()
  })

  test('answers an fd that is not a pidfd with an errno', async () => {
    const liar = await connected()

    liar.send(Buffer.from('{"id":7,"look":"pin"}'), [file()])

    const packet = await liar.receive()
    expect(typeof packet === 'object' && JSON.parse(Buffer.from(packet.bytes).toString())).toEqual({
      id: 7,
      errno: -ERRNO.ESRCH,
    })
    liar.close()
  })

  test('closes a connection with more requests than it may have under way', async () => {
    const liar = await connected()
    const looks = { look: 'host-facts', functions: [] }

    // So that all of them are there at once.
    helper.signal('SIGSTOP')
    for (let id = 0; id < 64; id += 1) liar.send(Buffer.from(JSON.stringify({ id, ...looks })))
    helper.signal('SIGCONT')

    for (;;) {
      const packet = await liar.receive()
      if (typeof packet === 'number' || packet.bytes.length === 0) break
      for (const fd of packet.fds) sys.closeSync(fd)
    }
    liar.close()
    await until(() => helper.said.includes('too many requests'))
    const pin = await pinned(await newProcess())
    pin.close()
  })

  test('takes eight connections and no more', async () => {
    const open: SeqpacketConnection[] = []
    for (let n = 0; n < 8; n += 1) open.push(await connected())
    const ninth = connectSeqpacket(helper.socket)
    if (typeof ninth === 'number') throw new Error(`errno ${-ninth}`)

    expect(await isClosed(ninth)).toBe(true)
    for (const connection of open) connection.close()
  })

  test.runIf(canBeOthers)(
    `refuses a process of another user before it says a word${noOtherUsers}`,
    async () => {
      chmodSync(helper.directory, 0o755)
      chmodSync(helper.socket, 0o666)
      const passing = fileURLToPath(new URL('../../dist/os/fd-passing.js', import.meta.url))
      const program = `
        import { connectSeqpacket } from ${JSON.stringify(passing)}
        const connection = connectSeqpacket(${JSON.stringify(helper.socket)})
        if (typeof connection === 'number') throw new Error(String(connection))
        const packet = await connection.receive()
        console.log(typeof packet === 'number' ? 'closed' : packet.bytes.length)
        process.exit(0)
      `
      const stranger = spawn(process.execPath, ['--input-type=module', '-e', program], {
        uid: 65_533,
        gid: 65_533,
        cwd: '/',
      })
      children.push(stranger)

      const [said] = await once(stranger.stdout, 'data')

      expect(String(said).trim()).toMatch(/^(0|closed)$/)
      await until(() => helper.said.includes('refused a connection of uid 65533'))
    },
  )
})

describe('the daemon', () => {
  const serve = (path: string, said: readonly object[]): { close: () => void } => {
    const listener = listenSeqpacket(path)
    if (typeof listener === 'number') throw new Error(`errno ${-listener}`)
    listener.onConnection((connection) => {
      for (const each of said) connection.send(Buffer.from(JSON.stringify(each)))
    })
    return listener
  }
  const HELLO = { serves: 'looks', version: VERSION, hasPtrace: true }

  test.each([
    ['of another version', [{ ...HELLO, version: '0.0.0' }], 'restart both'],
    ['that serves something else', [{ ...HELLO, serves: 'writes' }], 'does not serve looks'],
    ['that answers what was not asked', [HELLO, { id: 9, value: 1 }], 'not an answer'],
  ] as const)('takes no answer of a helper %s', async (_what, said, found) => {
    const path = `${helper.directory}/other.sock`
    const other = serve(path, said)
    const to = linkTo(path, 'looks')

    await expect(to.ask({ look: 'vfio-holders' })).rejects.toThrow(found)
    to.close()
    other.close()
  })

  test('does not wait for a look longer than its deadline', async () => {
    const path = `${helper.directory}/silent.sock`
    const other = serve(path, [HELLO])
    const to = linkTo(path, 'looks')

    const late = to.ask({ look: 'vfio-holders' }, { ms: 20 })

    await expect(late).rejects.toMatchObject({ reason: 'HELPER_UNAVAILABLE' })
    await expect(late).rejects.toThrow('has not answered within')
    to.close()
    other.close()
  })
})
