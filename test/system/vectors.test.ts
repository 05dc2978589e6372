/** Interrupt vectors one by one, and by the hundred: MSI-X and MSI of simulated devices through gRPC. */

import { closeSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { armEventfds } from '../../src/client/verbs.ts'
import { eventfdCreate, eventfdRead } from '../../src/os/eventfd.ts'
import { backend, type Daemon, openIn, startDaemon, until } from './world.ts'

const [INTX, MSI, MSIX] = [0, 1, 2]
const WIDE = '0000:01:00.0'
const SHORT = '0000:02:00.0'
const VECTORS = 300

const device = (address: string, group: number, rest: string): string => `
[[functions]]
address = "${address}"
kind = "inert"
group = ${group}
intx = true
msi_vectors = 8
msix_vectors = ${VECTORS}
reset = true
bars = [{ index = 0, size = 0x10000 }]
bound_driver = "vfio-pci"
${rest}
`

describe.skipIf(backend !== 'sim')('the vectors of a device', () => {
  let daemon: Daemon
  let client: VfiodClient
  let eventfds: number[]

  beforeAll(async () => {
    daemon = await startDaemon(device(WIDE, 7, '') + device(SHORT, 8, 'host_vectors = 2'))
    client = daemon.client()
    await openIn(client, 'wide', WIDE)
    await openIn(client, 'short', SHORT)
  })
  beforeEach(() => {
    eventfds = Array.from({ length: VECTORS }, () => eventfdCreate())
  })
  afterEach(async () => {
    for (const name of [WIDE, SHORT])
      for (const index of [INTX, MSI, MSIX]) await client.device.disableIrqs({ name, index })
    for (const fd of eventfds) closeSync(fd)
  })
  afterAll(async () => {
    expect(await daemon?.stop()).toBe(0)
  })

  type Request = NonNullable<Parameters<VfiodClient['device']['setIrqEventfds']>[0]>
  const arm = async (request: Request, fds: readonly number[]) => {
    return armEventfds(client, { name: WIDE, ...request }, fds)
  }
  const trigger = (index: number, vector: number) =>
    client.device.triggerIrq({ name: WIDE, index, vector })
  const countOf = (fd: number | undefined): bigint => {
    const count = eventfdRead(fd ?? -1)
    return typeof count === 'bigint' ? count : 0n
  }
  const armedOf = async (index: number, name = WIDE) => {
    const { device: info } = await client.device.getDeviceInfo({ name })
    const irq = info?.irqs.find((each) => each.index === index)
    return { armed: irq?.armed, allocated: irq?.allocated }
  }

  test('are armed by the hundred, in as many packets as their eventfds need', async () => {
    const reply = await arm({ index: MSIX, start: 0, count: VECTORS }, eventfds)
    for (const vector of [0, 252, 253, 299]) await trigger(MSIX, vector)

    expect(reply).toMatchObject({ vectors: VECTORS, missing: 0 })
    expect(eventfds.map(countOf).flatMap((count, vector) => (count > 0n ? [vector] : []))).toEqual([
      0, 252, 253, 299,
    ])
    expect((await armedOf(MSIX)).armed).toHaveLength(VECTORS)
  })

  test('are armed in parts: added, replaced and detached while others stay armed', async () => {
    const [first, second, other] = eventfds
    await arm({ index: MSIX, start: 5, count: 1 }, [first ?? -1])
    await arm({ index: MSIX, start: 6, count: 1 }, [second ?? -1])
    await arm({ index: MSIX, start: 5, count: 1 }, [other ?? -1])
    await trigger(MSIX, 5)
    await trigger(MSIX, 6)

    expect([first, second, other].map(countOf)).toEqual([0n, 1n, 1n])
    expect(await armedOf(MSIX)).toEqual({ armed: [5, 6], allocated: 7 })

    await client.device.disableIrqs({ name: WIDE, index: MSIX, start: 5, count: 1 })
    await trigger(MSIX, 6)
    await expect(trigger(MSIX, 5)).rejects.toMatchObject({ reason: 'NO_SUCH_IRQ' })
    await expect(trigger(MSIX, 5)).rejects.toThrow('it is not armed, only 6 are; watch it')

    expect([second, other].map(countOf)).toEqual([1n, 0n])
    expect(await armedOf(MSIX)).toEqual({ armed: [6], allocated: 7 })
  })

  test('of an index of fixed size are allocated once: DEVICE_IN_USE when it would grow', async () => {
    const [first, second] = eventfds
    await arm({ index: MSI, start: 0, count: 1 }, [first ?? -1])
    const grown = arm({ index: MSI, start: 3, count: 1 }, [second ?? -1])
    await expect(grown).rejects.toMatchObject({ reason: 'DEVICE_IN_USE' })
    await expect(grown).rejects.toThrow('was enabled with 1 vectors and cannot grow; disable it')

    await client.device.disableIrqs({ name: WIDE, index: MSI })
    await arm({ index: MSI, start: 0, count: 1, allocate: 8 }, [first ?? -1])
    await arm({ index: MSI, start: 3, count: 1 }, [second ?? -1])
    await trigger(MSI, 3)

    expect(await armedOf(MSI)).toEqual({ armed: [0, 3], allocated: 8 })
    expect(countOf(second)).toBe(1n)
  })

  test('of one kind exclude those of another, and the refusal names it: DEVICE_IN_USE', async () => {
    const [first, second] = eventfds
    await arm({ index: INTX, start: 0, count: 1 }, [first ?? -1])

    const refused = arm({ index: MSIX, start: 0, count: 1 }, [second ?? -1])

    await expect(refused).rejects.toMatchObject({ reason: 'DEVICE_IN_USE' })
    await expect(refused).rejects.toThrow(
      `Cannot arm vectors 0..0 of IRQ index 2 (MSIX) of ${WIDE}: IRQ index 0 (INTX) is enabled, and a device has one of INTX, MSI and MSIX at a time; disable it first`,
    )
    await client.device.disableIrqs({ name: WIDE, index: INTX })
    await arm({ index: MSIX, start: 0, count: 1 }, [second ?? -1])
  })

  test('that the host does not have are told, and none is armed: LIMIT_REACHED', async () => {
    const many = arm({ name: SHORT, index: MSI, start: 0, count: 4 }, eventfds.slice(0, 4))

    await expect(many).rejects.toMatchObject({ reason: 'LIMIT_REACHED' })
    await expect(many).rejects.toThrow('4 were asked for and the host has 2 to give')
    expect(await armedOf(MSI, SHORT)).toEqual({ armed: [], allocated: 0 })
    await arm({ name: SHORT, index: MSI, start: 0, count: 2 }, eventfds.slice(0, 2))
    expect(await armedOf(MSI, SHORT)).toEqual({ armed: [0, 1], allocated: 2 })
  })

  test('have one listener each: a stream beside eventfds, never in their place', async () => {
    const [first] = eventfds
    const stream = client.device.watchIrqs({ name: WIDE, index: MSIX, start: 0, count: 2 })
    const events = stream[Symbol.asyncIterator]()
    await events.next()

    await expect(arm({ index: MSIX, start: 1, count: 1 }, [first ?? -1])).rejects.toThrow(
      'vector 1 is armed already and has a stream; end that first',
    )
    await arm({ index: MSIX, start: 2, count: 1 }, [first ?? -1])
    await trigger(MSIX, 1)
    expect((await events.next()).value).toMatchObject({ irq: { vector: 1, count: '1' } })
    const taken = client.device.watchIrqs({ name: WIDE, index: MSIX, start: 2, count: 1 })
    await expect(taken[Symbol.asyncIterator]().next()).rejects.toThrow(
      'vector 2 is armed already and has an eventfd; detach it first',
    )
    stream.cancel()
    await until(async () => ((await armedOf(MSIX)).armed?.length === 1 ? true : undefined))

    expect(await armedOf(MSIX)).toEqual({ armed: [2], allocated: 3 })
  })

  test('end the stream that hears them when they are disarmed: CANCELLED', async () => {
    const events = client.device
      .watchIrqs({ name: WIDE, index: MSIX, start: 0, count: 4 })
      [Symbol.asyncIterator]()
    await events.next()

    await client.device.disableIrqs({ name: WIDE, index: MSIX, start: 2, count: 1 })

    await expect(events.next()).rejects.toMatchObject({ reason: 'CANCELLED' })
    await until(async () => ((await armedOf(MSIX)).allocated === 0 ? true : undefined))
  })

  test('have an eventfd that unmasks them only where they are armed and can be masked', async () => {
    const [raised, unmask] = eventfds
    const asked = { index: INTX, start: 0, count: 1 } as const
    const action = 'IRQ_EVENTFD_ACTION_UNMASK'
    await expect(arm({ ...asked, action }, [unmask ?? -1])).rejects.toMatchObject({
      reason: 'NO_SUCH_IRQ',
    })
    await arm(asked, [raised ?? -1])
    await arm({ ...asked, action }, [unmask ?? -1])
    await arm({ ...asked, action }, [unmask ?? -1])

    await expect(
      arm({ index: MSI, start: 0, count: 1, action }, [unmask ?? -1]),
    ).rejects.toMatchObject({ reason: 'UNSUPPORTED' })
  })
})
