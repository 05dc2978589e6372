/** A device that does DMA and raises interrupts, through the whole of vfio: QEMU's edu. */

import { beforeAll, describe, expect, test } from 'vitest'
import { VFIO_DMA_UNMAP_FLAG_ALL, VFIO_DMA_UNMAP_FLAG_VADDR } from '../../src/abi/container.ts'
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
} from '../../src/abi/device.ts'
import { eventfdSignal } from '../../src/os/eventfd.ts'
import type { Segment } from '../../src/os/memory.ts'
import { describeContract, unless } from './backends.ts'
import { mapDma, s32, setContainer, setIrqs, unmapDma } from './calls.ts'
import { BUFFER, EduDriver, REG, START, THEN_IRQ, TO_MEMORY } from './edu-driver.ts'

const PAGE = 0x1000n
const IOVA = 0x10_0000n
const SIZE = 0x4000n

describeContract('edu', (machine) => {
  const { kernel } = machine
  let first = ''
  let second = ''

  beforeAll(async () => {
    ;[first, second] = await machine.edus()
  })

  const ready = async (): Promise<{ container: number; edu: EduDriver; group: number }> => {
    const { container, device, group } = await machine.opened(first)
    const edu = await new EduDriver(machine, device).enable()
    await edu.write32(REG.irqAcknowledge, 0xffff_ffff)
    return { container, edu, group }
  }

  const map = async (container: number, segment: Segment, iova = IOVA, flags = 3) => {
    const size = BigInt(segment.length)
    expect(await mapDma(kernel, container, { vaddr: segment.address, iova, size, flags })).toBe(0)
  }

  /** Bytes that differ from place to place. */
  const pattern = (segment: Segment, seed: number): void => {
    for (let at = 0; at < segment.length; at++) segment.bytes[at] = (at * 7 + seed) & 0xff
  }

  describe('registers', () => {
    test('answer accesses of four bytes with id, inverse and factorial', async () => {
      const { edu } = await ready()
      expect(await edu.read32(REG.id)).toBe(0x010000ed)

      await edu.write32(REG.liveness, 0x0f0f_1234)
      expect(await edu.read32(REG.liveness)).toBe(0xf0f0_edcb)

      await edu.write32(REG.factorial, 10)
      await machine.until(async () =>
        ((await edu.read32(REG.status)) & 1) === 0 ? true : undefined,
      )
      expect(await edu.read32(REG.factorial)).toBe(3_628_800)
    })

    test('are read and written where the last access of the file has ended', async () => {
      const { edu } = await ready()
      const bytes = new Uint8Array(4)

      expect(await kernel.read(edu.device, bytes)).toBe(4)
      expect(await kernel.write(edu.device, Uint8Array.of(0x0f, 0, 0, 0xf0))).toBe(4)

      expect(bytes).toEqual(Uint8Array.of(0xed, 0, 0, 1))
      expect(await edu.read32(REG.liveness)).toBe(0x0fff_fff0)
    })

    test('answer eight bytes only from 0x80 on, and all ones elsewhere', async () => {
      const { edu } = await ready()
      await edu.write64(REG.dmaSource, 0x1122_3344_5566_7788n)

      expect(await edu.read64(REG.dmaSource)).toBe(0x1122_3344_5566_7788n)
      expect(await edu.read64(REG.id)).toBe((1n << 64n) - 1n)
      expect(await edu.read32(0x0cn)).toBe(0xffff_ffff)
    })

    test('do not answer one or two bytes: they read as 0', async () => {
      const { edu } = await ready()
      const [one, two] = [Buffer.alloc(1, 0x55), Buffer.alloc(2, 0x55)]

      await kernel.pread(edu.device, one, REG.id)
      await kernel.pread(edu.device, two, REG.id)

      expect([...one, ...two]).toEqual([0, 0, 0])
    })
  })

  describe('DMA', () => {
    test('goes from memory to the device and back to other memory', async () => {
      const { container, edu } = await ready()
      const { segment } = await machine.memory(Number(SIZE))
      await map(container, segment)
      pattern(segment, 1)
      const sent = segment.bytes.slice(0, 256)

      await edu.fetch(IOVA, 256)
      await edu.store(IOVA + 2n * PAGE + 64n, 256)

      expect(segment.bytes.slice(8192 + 64, 8192 + 64 + 256)).toEqual(sent)
      expect(segment.bytes[8192 + 63]).toBe((8255 * 7 + 1) & 0xff)
      expect(segment.bytes[8192 + 64 + 256]).toBe(((8192 + 320) * 7 + 1) & 0xff)
    })

    test('crosses from one mapping into the next', async () => {
      const { container, edu } = await ready()
      const { segment: low } = await machine.memory(4096)
      const { segment: high } = await machine.memory(4096)
      await map(container, low, IOVA)
      await map(container, high, IOVA + PAGE)
      pattern(low, 3)
      pattern(high, 5)

      await edu.fetch(IOVA + PAGE - 16n, 32)
      await edu.store(IOVA, 32)

      const expected = [...low.bytes.slice(4080), ...high.bytes.slice(0, 16)]
      expect([...low.bytes.slice(0, 32)]).toEqual(expected)
    })

    test('is dropped where nothing is mapped: memory stays, and reads give zeros', async () => {
      const { container, edu } = await ready()
      const { segment } = await machine.memory(Number(SIZE))
      await map(container, segment)
      pattern(segment, 9)
      await edu.fetch(IOVA, 64)

      await edu.store(IOVA + SIZE, 64)
      await edu.fetch(IOVA + SIZE, 32)
      await edu.store(IOVA, 64)

      expect([...segment.bytes.slice(0, 32)]).toEqual(Array(32).fill(0))
      expect(segment.bytes[32]).toBe((32 * 7 + 9) & 0xff)
    })

    test('is dropped where the mapping does not allow it', async () => {
      const { container, edu } = await ready()
      const { segment: readOnly } = await machine.memory(4096)
      const { segment: both } = await machine.memory(4096)
      await map(container, readOnly, IOVA, 1)
      await map(container, both, IOVA + PAGE, 3)
      pattern(readOnly, 2)
      await edu.fetch(IOVA, 64)

      await edu.store(IOVA, 64, 1n)
      await edu.store(IOVA + PAGE, 64)

      expect(readOnly.bytes[0]).toBe(2)
      expect(both.bytes.slice(0, 64)).toEqual(readOnly.bytes.slice(0, 64))
    })

    test('is dropped without bus mastering', async () => {
      const { container, edu } = await ready()
      const { segment } = await machine.memory(4096)
      await map(container, segment)
      pattern(segment, 4)
      await edu.fetch(IOVA, 64)
      segment.bytes.fill(0xee)
      await edu.enable({ isMaster: false })

      await edu.store(IOVA, 64)

      expect(segment.bytes[0]).toBe(0xee)
      await edu.enable()
      await edu.store(IOVA, 64)
      expect(segment.bytes[0]).toBe(4)
    })

    test('is dropped after the mapping is gone', async () => {
      const { container, edu } = await ready()
      const { segment } = await machine.memory(Number(SIZE))
      await map(container, segment)
      segment.bytes.fill(0xee)
      await unmapDma(kernel, container, { iova: IOVA, size: SIZE })

      await edu.store(IOVA, 64)

      expect(segment.bytes[0]).toBe(0xee)
    })

    test('of another group in the container reaches the same memory', async () => {
      const { container, edu } = await ready()
      const group = await machine.group(second)
      expect(await setContainer(kernel, group, container)).toBe(0)
      const other = await new EduDriver(machine, await machine.deviceOf(group, second)).enable()
      const { segment } = await machine.memory(Number(SIZE))
      await map(container, segment)
      pattern(segment, 6)

      await edu.fetch(IOVA, 64)
      await other.fetch(IOVA + 64n, 64)
      await edu.store(IOVA + PAGE, 64)
      await other.store(IOVA + 2n * PAGE, 64)

      expect(segment.bytes.slice(4096, 4160)).toEqual(segment.bytes.slice(0, 64))
      expect(segment.bytes.slice(8192, 8256)).toEqual(segment.bytes.slice(64, 128))
    })

    unless(machine.backend === 'linux', 'QEMU 7.2 aborts, and the machine with it')(
      'moves nothing where there is nothing to move, or the range ends with the buffer or behind',
      async () => {
        const { container, edu } = await ready()
        const { segment } = await machine.memory(4096)
        await map(container, segment)
        segment.bytes.fill(0x5a)
        const moved: string[] = []
        for (const [at, length] of [
          [0n, 0],
          [0n, 4096],
          [0n, 4097],
          [4095n, 1],
          [4096n, 1],
          [-1n, 1],
          [0n, 4095],
          [4094n, 1],
        ] as const) {
          segment.bytes.fill(0x5a)
          await edu.store(IOVA, length, at)
          if (segment.bytes.some((byte) => byte !== 0x5a)) moved.push(`${length} from ${at}`)
        }

        expect(moved).toEqual(['4095 from 0', '1 from 4094'])
      },
    )

    test('ignores new parameters while a transfer is under way', async () => {
      const { container, edu } = await ready()
      const { segment } = await machine.memory(4096)
      await map(container, segment)
      await edu.begin({ source: IOVA, destination: BUFFER, length: 16, command: START })

      await edu.write64(REG.dmaSource, 0x1234n)

      await edu.done()
      expect(await edu.read64(REG.dmaSource)).toBe(IOVA)
    })
  })

  describe('live update', () => {
    unless(machine.isCompat, 'the memory of an ioas has no vaddr')(
      'DMA goes on while the vaddr is invalid, and after it moved',
      async () => {
        const { container, edu } = await ready()
        const { fd, segment } = await machine.memory(Number(SIZE))
        await map(container, segment)
        pattern(segment, 11)
        await edu.fetch(IOVA, 128)
        const flags = VFIO_DMA_UNMAP_FLAG_VADDR | VFIO_DMA_UNMAP_FLAG_ALL
        expect((await unmapDma(kernel, container, { flags })).size).toBe(SIZE)

        machine.free(segment)
        await edu.store(IOVA + PAGE, 128)

        const moved = await machine.mapped(fd, Number(SIZE))
        expect(moved.bytes.slice(4096, 4224)).toEqual(moved.bytes.slice(0, 128))
        const map4 = { flags: 4, vaddr: moved.address, iova: IOVA, size: SIZE }
        expect(await mapDma(kernel, container, map4)).toBe(0)
        await edu.store(IOVA + 2n * PAGE, 128)
        expect(moved.bytes.slice(8192, 8320)).toEqual(moved.bytes.slice(0, 128))
      },
    )

    test('a mapping that was removed and made again leads to the new memory', async () => {
      const { container, edu } = await ready()
      const { segment: old } = await machine.memory(4096)
      const { segment: fresh } = await machine.memory(4096)
      await map(container, old)
      pattern(old, 13)
      await edu.fetch(IOVA, 64)
      await unmapDma(kernel, container, { iova: IOVA, size: PAGE })
      await map(container, fresh)

      await edu.store(IOVA + 128n, 64)

      expect(fresh.bytes.slice(128, 192)).toEqual(old.bytes.slice(0, 64))
      expect(old.bytes[128]).toBe((128 * 7 + 13) & 0xff)
    })

    test('mappings stay while a device is open, its container and group being closed', async () => {
      const { container, edu, group } = await ready()
      const { fd, segment } = await machine.memory(4096)
      await map(container, segment)
      pattern(segment, 17)
      await edu.fetch(IOVA, 64)
      await machine.close(container)
      await machine.close(group)

      await edu.store(IOVA + 256n, 64)

      const again = await machine.mapped(fd, 4096)
      expect(again.bytes.slice(256, 320)).toEqual(again.bytes.slice(0, 64))
    })
  })

  describe('interrupts', () => {
    /** Time passes: the device computes, and is done. */
    const compute = async (edu: EduDriver): Promise<void> => {
      await edu.write32(REG.factorial, 3)
      await machine.until(async () =>
        ((await edu.read32(REG.status)) & 1) === 0 ? true : undefined,
      )
    }

    const irq = (edu: EduDriver, index: number, flags: number, data: Uint8Array = s32()) =>
      setIrqs(kernel, edu.device, { flags, index, count: 1, data })

    const trigger = async (edu: EduDriver, index: number): Promise<number> => {
      const eventfd = machine.eventfd()
      const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
      expect(await irq(edu, index, flags, s32(eventfd))).toBe(0)
      return eventfd
    }

    test('MSI: each raise signals once', async () => {
      const { edu } = await ready()
      const eventfd = await trigger(edu, VFIO_PCI_MSI_IRQ_INDEX)

      await edu.write32(REG.irqRaise, 1)
      expect(await machine.signals(eventfd)).toBe(1n)
      await edu.write32(REG.irqRaise, 2)
      expect(await machine.signals(eventfd)).toBe(1n)

      expect(await edu.read32(REG.irqStatus)).toBe(3)
      await edu.write32(REG.irqAcknowledge, 3)
      expect(await edu.read32(REG.irqStatus)).toBe(0)
    })

    test('MSI: the end of a transfer signals, where it was asked for', async () => {
      const { container, edu } = await ready()
      const { segment } = await machine.memory(4096)
      await map(container, segment)
      const eventfd = await trigger(edu, VFIO_PCI_MSI_IRQ_INDEX)

      await edu.begin({
        source: BUFFER,
        destination: IOVA,
        length: 16,
        command: START | TO_MEMORY | THEN_IRQ,
      })

      expect(await machine.signals(eventfd)).toBe(1n)
      expect(await edu.read32(REG.irqStatus)).toBe(0x100)
      await edu.write32(REG.irqAcknowledge, 0x100)
    })

    test('MSI: the end of a factorial signals, where it was asked for', async () => {
      const { edu } = await ready()
      const eventfd = await trigger(edu, VFIO_PCI_MSI_IRQ_INDEX)
      await edu.write32(REG.status, 0x80)

      await edu.write32(REG.factorial, 5)

      expect(await machine.signals(eventfd)).toBe(1n)
      expect(await edu.read32(REG.irqStatus)).toBe(1)
      expect(await edu.read32(REG.factorial)).toBe(120)
      await edu.write32(REG.status, 0)
      await edu.write32(REG.irqAcknowledge, 1)
    })

    test('INTx: a raise signals and masks, and unmasking signals again until acknowledged', async () => {
      const { edu } = await ready()
      const index = VFIO_PCI_INTX_IRQ_INDEX
      const unmask = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK
      const eventfd = await trigger(edu, index)

      await edu.write32(REG.irqRaise, 1)
      expect(await machine.signals(eventfd)).toBe(1n)

      expect(await irq(edu, index, unmask)).toBe(0)
      expect(await machine.signals(eventfd)).toBe(1n)

      await edu.write32(REG.irqAcknowledge, 1)
      expect(await irq(edu, index, unmask)).toBe(0)
      await edu.write32(REG.irqRaise, 2)
      expect(await machine.signals(eventfd)).toBe(1n)
      await edu.write32(REG.irqAcknowledge, 2)
    })

    test('INTx: nothing signals while it is masked, and it does once it is not', async () => {
      const { edu } = await ready()
      const index = VFIO_PCI_INTX_IRQ_INDEX
      const eventfd = await trigger(edu, index)
      expect(await irq(edu, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK)).toBe(0)

      await edu.write32(REG.irqRaise, 1)
      await compute(edu)
      expect(machine.wasSignalled(eventfd)).toBe(false)

      expect(await irq(edu, index, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK)).toBe(0)
      expect(await machine.signals(eventfd)).toBe(1n)
      await edu.write32(REG.irqAcknowledge, 1)
    })

    test('INTx: signalling an eventfd unmasks it', async () => {
      const { edu } = await ready()
      const index = VFIO_PCI_INTX_IRQ_INDEX
      const eventfd = await trigger(edu, index)
      const unmask = machine.eventfd()
      const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK
      expect(await irq(edu, index, flags, s32(unmask))).toBe(0)
      await edu.write32(REG.irqRaise, 1)
      expect(await machine.signals(eventfd)).toBe(1n)

      eventfdSignal(unmask)

      expect(await machine.signals(eventfd)).toBe(1n)
      await edu.write32(REG.irqAcknowledge, 1)
    })

    test('INTx: -1 takes away the eventfd that unmasks it', async () => {
      const { edu } = await ready()
      const index = VFIO_PCI_INTX_IRQ_INDEX
      const eventfd = await trigger(edu, index)
      const unmask = machine.eventfd()
      const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK
      expect(await irq(edu, index, flags, s32(unmask))).toBe(0)
      expect(await irq(edu, index, flags, s32(-1))).toBe(0)
      await edu.write32(REG.irqRaise, 1)
      expect(await machine.signals(eventfd)).toBe(1n)

      eventfdSignal(unmask)

      await compute(edu)
      expect(machine.wasSignalled(eventfd)).toBe(false)
      await edu.write32(REG.irqAcknowledge, 1)
    })
  })
})
