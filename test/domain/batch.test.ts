// A batch is work for many; between its items others have their turn.

import { expect, test } from 'vitest'
import { inTurn } from '../../src/domain/space/batch.ts'

test('other work of the event loop goes on between the items of a long batch', async () => {
  const order: string[] = []
  const items = Array.from({ length: 8192 }, (_, n) => n)
  const batch = inTurn(items, async (item) => {
    if (item === items.length - 1) order.push('last item')
    return 1n
  })
  setImmediate(() => order.push('another call'))

  const { bytes } = await batch

  expect(order).toEqual(['another call', 'last item'])
  expect(bytes).toBe(8192n)
})
