import { expect, test } from 'vitest'
import { Lane } from '../../src/base/lane.ts'

test('a lane starts an operation only when the one before it has ended', async () => {
  const lane = new Lane()
  const seen: string[] = []
  let finish = () => {}
  const first = lane.run(async () => {
    seen.push('first starts')
    await new Promise<void>((resolve) => {
      finish = resolve
    })
    seen.push('first ends')
  })
  const second = lane.run(async () => {
    seen.push('second starts')
  })
  await Promise.resolve()

  finish()
  await Promise.all([first, second])

  expect(seen).toEqual(['first starts', 'first ends', 'second starts'])
})

test('a lane goes on after an operation that throws, and its error reaches its caller', async () => {
  const lane = new Lane()
  const failing = lane.run(() => Promise.reject(new Error('no')))
  const next = lane.run(async () => 'yes')

  await expect(failing).rejects.toThrow('no')
  await expect(next).resolves.toBe('yes')
})
