// Writes that a helper makes for the binding of devices: it may go in the middle, and what was done is
// undone by the next one, or named.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import type { HelperLink } from '../../src/helper/helper-link.ts'
import { HelperServer, type Serve } from '../../src/helper/server.ts'
import { serveWrites, writeByHelper } from '../../src/helper/writes.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { connectSeqpacket, listenSeqpacket } from '../../src/os/fd-passing.ts'
import { type World, world } from '../domain/machine.ts'
import { alice } from '../domain/people.ts'
import { HelperProcess, linkTo, VERSION } from './helper-process.ts'

/** A network card, which a driver of the host has. */
const CARD = '0000:00:07.0'

let directory: string
let path: string
let server: HelperServer | undefined
let link: HelperLink
let at: World

/** The kernel of the machine, whose writes the helper of this test makes. */
const over = (kernel: Kernel): Kernel =>
  new Proxy(kernel, {
    get: (target, name) => {
      if (name === 'writeFile') return writeByHelper(link)
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })

const startServer = (serve: Serve): void => {
  const listener = listenSeqpacket(path)
  if (typeof listener === 'number') throw new Error(`errno ${-listener}`)
  server = new HelperServer({
    ...{ listener, serve, serves: 'writes', version: VERSION },
    ...{ uids: [], log: () => undefined },
  })
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vfiod-writes-'))
  path = join(directory, 'writes.sock')
  link = linkTo(path, 'writes')
  at = world(undefined, { over })
  startServer(serveWrites(at.sim.kernel))
})
afterEach(async () => {
  await at.domain.releaseAll('the test is over')
  link.close()
  server?.close()
  rmSync(directory, { recursive: true })
})

const bind = () =>
  at.domain.binding.bind(alice, { devices: [CARD], wholeGroup: false, driver: undefined })
const driver = async () => (await at.domain.inventory.device(CARD)).driver
const override = async () => {
  const bytes = await at.sim.kernel.readFile(`/sys/bus/pci/devices/${CARD}/driver_override`)
  return typeof bytes === 'number' ? bytes : new TextDecoder().decode(bytes).trim()
}

/** Serves the writes of the machine; `after` is called when one of this kind is made, before its answer. */
const servingBut = (kind: string, after: () => void): Serve => {
  const whole = serveWrites(at.sim.kernel)
  return (request, fds) => {
    const served = whole(request, fds)
    if ((request as { write?: string }).write !== kind) return served
    return served?.then((answer) => {
      after()
      return answer
    })
  }
}

describe('a device', () => {
  test('is bound and given back by the writes of a helper', async () => {
    expect(await driver()).toBe('e1000e')

    await bind()
    expect(await driver()).toBe('vfio-pci')

    await at.domain.binding.unbind(alice, { devices: [CARD], wholeGroup: false })
    expect(await driver()).toBe('e1000e')
  })

  test('stays as it is while the helper is gone: HELPER_UNAVAILABLE', async () => {
    server?.close()

    await expect(bind()).rejects.toMatchObject({ reason: 'HELPER_UNAVAILABLE' })

    expect(await driver()).toBe('e1000e')
  })

  test.each(['driver_override', 'unbind', 'drivers_probe'])(
    'gets its driver back from the next helper when one goes after it made the write of %s',
    async (kind) => {
      server?.close()
      startServer(
        servingBut(kind, () => {
          server?.close()
          startServer(serveWrites(at.sim.kernel))
        }),
      )

      await expect(bind()).rejects.toMatchObject({ reason: 'HELPER_UNAVAILABLE' })

      expect([await driver(), await override()]).toEqual(['e1000e', '(null)'])
    },
  )

  test('is named when no helper comes back to undo a bind, and an unbind mends it later', async () => {
    server?.close()
    startServer(servingBut('unbind', () => server?.close()))

    await expect(bind()).rejects.toThrow(CARD)
    expect([await driver(), await override()]).toEqual([undefined, 'vfio-pci'])

    startServer(serveWrites(at.sim.kernel))
    await at.domain.binding.unbind(alice, { devices: [CARD], wholeGroup: false })
    expect(await driver()).toBe('e1000e')
  })

  test('is waited for as long as the kernel takes, and no longer than the caller waits', async () => {
    const never = new Promise<number>(() => undefined)
    server?.close()
    startServer(serveWrites({ writeFile: () => never }))
    at = world(undefined, { over, patienceMs: 20 })

    await expect(bind()).rejects.toMatchObject({ reason: 'KERNEL_NOT_DONE' })
    await expect(bind()).rejects.toMatchObject({ reason: 'KERNEL_NOT_DONE' })
  })
})

describe('the errno of a write', () => {
  test('is that of the kernel', async () => {
    const write = writeByHelper(link)

    expect(await write('/sys/bus/pci/drivers/no-such/unbind', CARD)).toBe(-ERRNO.ENOENT)
    expect(await write('/sys/bus/pci/drivers_probe', 'ffff:ff:1f.7')).toBeLessThan(0)
  })

  test('is -EACCES for a file that no helper writes', async () => {
    const write = writeByHelper(link)

    expect(await write('/sys/bus/pci/drivers/vfio-pci/new_id', '1234 11e8')).toBe(-ERRNO.EACCES)
    expect(await write('/etc/passwd', 'x')).toBe(-ERRNO.EACCES)
  })
})

describe('a helper for writes', () => {
  test('makes no looks, and closes the connection that asks for one', async () => {
    const helper = new HelperProcess('writes')
    try {
      await helper.start()
      for (const text of [
        '{"id":1,"look":"vfio-holders"}',
        '{"id":1,"write":"unbind","device":"0000:00:04.0","driver":"../x"}',
        '{"id":1,"write":"drivers_probe","device":"0000:00:04.0","path":"/etc/passwd"}',
      ]) {
        const liar = connectSeqpacket(helper.socket)
        if (typeof liar === 'number') throw new Error(`errno ${-liar}`)
        await liar.receive()
        liar.send(Buffer.from(text))
        const packet = await liar.receive()
        expect(typeof packet === 'number' || packet.bytes.length === 0).toBe(true)
        liar.close()
      }
      const to = linkTo(helper.socket, 'writes')
      // The machine of the test has no such device.
      const answer = await writeByHelper(to)(
        '/sys/bus/pci/drivers/vfiod-none/unbind',
        '0000:00:04.0',
      )
      expect(answer).toBeLessThan(0)
      to.close()
    } finally {
      await helper.remove()
    }
  })
})
