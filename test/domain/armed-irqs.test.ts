import { describe, expect, test } from 'vitest'
import { ArmedIrqs } from '../../src/domain/device/armed-irqs.ts'
import type { IrqIndex } from '../../src/kernel/device-calls.ts'

const irq = (index: number, isFixedSize = false): IrqIndex => ({
  ...{ index, count: 16, isFixedSize },
  ...{ hasEventfd: true, isMaskable: false, isAutomasked: false },
})
const one = { start: 3, count: 1 }
const stream = () => {
  const listener = {
    ended: 0,
    disarmed: () => {
      listener.ended += 1
    },
  }
  return listener
}

describe('the armed vectors of a device', () => {
  test('keep an index enabled when the last of them is detached, and no longer', () => {
    const armed = new ArmedIrqs({ name: 'dev', isPci: true })
    armed.arm(2, one, 'eventfd', 8)
    armed.detach(2, one)

    expect([armed.vectors(2), armed.allocated(2), armed.indexes]).toEqual([[], 8, [2]])
    armed.disable(2)
    expect([armed.allocated(2), armed.indexes]).toEqual([0, []])
  })

  test('tell a stream once that it was disarmed, by whichever of its vectors', () => {
    const armed = new ArmedIrqs({ name: 'dev', isPci: true })
    const [first, second] = [stream(), stream()]
    armed.arm(2, { start: 0, count: 4 }, first, 4)
    armed.arm(2, { start: 4, count: 4 }, second, 8)

    armed.detach(2, { start: 1, count: 2 })

    expect([first.ended, second.ended]).toEqual([1, 0])
    expect(armed.heardBy(2, first)).toEqual({
      ranges: [
        { start: 0, count: 1 },
        { start: 3, count: 1 },
      ],
      hasOthers: true,
    })
  })

  test('exclude other kinds on PCI, and nothing on another bus', () => {
    const pci = new ArmedIrqs({ name: 'dev', isPci: true })
    const other = new ArmedIrqs({ name: 'dev', isPci: false })
    for (const each of [pci, other]) each.arm(1, one, 'eventfd', 4)

    expect(() => pci.requireArmable(irq(2), one, 'eventfds')).toThrow(
      'IRQ index 1 (MSI) is enabled',
    )
    expect(() => pci.requireArmable(irq(4), one, 'eventfds')).not.toThrow()
    expect(() => other.requireArmable(irq(2), one, 'eventfds')).not.toThrow()
  })

  test('of an index of fixed size stay among those that were allocated', () => {
    const armed = new ArmedIrqs({ name: 'dev', isPci: true })
    armed.arm(1, { start: 0, count: 1 }, 'eventfd', 4)

    expect(() => armed.requireArmable(irq(1, true), one, 'eventfds')).not.toThrow()
    expect(() => armed.requireArmable(irq(1, true), { start: 4, count: 1 }, 'eventfds')).toThrow(
      'was enabled with 4 vectors and cannot grow',
    )
    expect(() => armed.requireArmable(irq(1), { start: 4, count: 1 }, 'eventfds')).not.toThrow()
  })
})
