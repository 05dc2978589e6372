/** Interrupts of a device, as a stream and as eventfds, through gRPC. */

import { closeSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { sendFds } from '../../src/client/fd-channel.ts'
import { eventfdCreate, eventfdRead, eventfdSignal } from '../../src/os/eventfd.ts'
import { describeModes } from '../modes.ts'
import type { Edu } from './edu.ts'
import { type ReadyDevice, readyDevice } from './ready-device.ts'
import { until } from './world.ts'

const INTX = 0
const MSI = 1
const SPACE = 'irq-test'
const IOVA = 0x10_0000n

describeModes('interrupts', (mode) => {
  let ready: ReadyDevice | undefined
  let client: VfiodClient
  let edu: Edu
  let name: string

  beforeAll(async () => {
    ready = await readyDevice(mode, { spaceId: SPACE, length: 8192n, iova: IOVA })
    const { client: its, edu: first, name: called } = ready
    client = its
    edu = first
    name = called
  })

  afterAll(() => ready?.stop())

  /** A stream of another test is disarmed once the daemon has seen it cancelled. */
  const ticketForVector = () =>
    until(async () => {
      const asked = await client.device
        .setIrqEventfds({ name, index: MSI, start: 0, count: 1 })
        .catch(() => undefined)
      return asked?.ticket ?? undefined
    })

  describe('interrupts through gRPC', () => {
    test('arrive as stream events: raised by register, by DMA, and by software', async () => {
      const stream = client.device.watchIrqs({ name, index: MSI, start: 0, count: 1 })
      const events = stream[Symbol.asyncIterator]()
      const next = async () => (await events.next()).value

      const armed = await next()
      await edu.raiseIrq(1)
      const byRegister = await next()
      await edu.acknowledgeIrq(1)
      await edu.copyOut(IOVA, 2048, { interrupt: true })
      const byDma = await next()
      await edu.acknowledgeIrq(0x100)
      await client.device.triggerIrq({ name, index: MSI, vector: 0 })
      const bySoftware = await next()

      expect(armed).toMatchObject({ armed: true })
      for (const event of [byRegister, byDma, bySoftware]) {
        expect(event).toMatchObject({ irq: { vector: 0, count: '1' } })
      }
      stream.cancel()
    })

    test('arrive at an eventfd of the client, without the daemon in between', async () => {
      const eventfd = eventfdCreate()
      const ticket = await ticketForVector()
      await sendFds(ticket, [eventfd])

      await edu.raiseIrq(2)
      const count = await until(() => {
        const read = eventfdRead(eventfd)
        return typeof read === 'bigint' ? read : undefined
      })

      expect(count).toBe(1n)
      await edu.acknowledgeIrq(2)
      await client.device.disableIrqs({ name, index: MSI })
      closeSync(eventfd)
    })

    test('of INTx are unmasked by an eventfd of the client: a level that is up arrives again', async () => {
      const [raised, unmask] = [eventfdCreate(), eventfdCreate()]
      const arm = async (action: 'TRIGGER' | 'UNMASK', eventfd: number) => {
        const { ticket } = await client.device.setIrqEventfds({
          ...{ name, index: INTX, count: 1 },
          action: `IRQ_EVENTFD_ACTION_${action}`,
        })
        if (ticket === null) throw new Error('no ticket')
        await sendFds(ticket, [eventfd])
      }
      const arrives = () =>
        until(() => {
          const read = eventfdRead(raised)
          return typeof read === 'bigint' ? read : undefined
        })
      await arm('TRIGGER', raised)
      await arm('UNMASK', unmask)

      await edu.raiseIrq(4)
      const first = await arrives()
      eventfdSignal(unmask)
      const second = await arrives()
      await edu.acknowledgeIrq(4)
      await client.device.disableIrqs({ name, index: INTX })

      expect([first, second]).toEqual([1n, 1n])
      closeSync(raised)
      closeSync(unmask)
    })

    test('refuses fds that are not eventfds, and keeps none', async () => {
      const ticket = await ticketForVector()

      await expect(sendFds(ticket, [1])).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
      await expect(sendFds(ticket, [1])).rejects.toMatchObject({ reason: 'BAD_TICKET' })
    })

    test('refuses vectors that the index does not have: NO_SUCH_IRQ', async () => {
      const asked = client.device.setIrqEventfds({ name, index: MSI, start: 0, count: 2 })

      await expect(asked).rejects.toMatchObject({ reason: 'NO_SUCH_IRQ' })
    })
  })
})
