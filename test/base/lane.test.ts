import { describe, expect, test } from 'vitest'
import { Gate } from '../../src/base/gate.ts'
import { Lane, Lanes, runIfIdle, runInAll } from '../../src/base/lane.ts'

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

describe('lanes by key', () => {
  test('let operations that share no key go on', async () => {
    const lanes = new Lanes<number>()
    const never = lanes.run([1], () => new Promise<never>(() => {}))
    void never

    expect(await lanes.run([2, 3], async () => 'done')).toBe('done')
  })

  test('run one operation at a time for a key, in whatever order the keys are named', async () => {
    const lanes = new Lanes<number>()
    const order: string[] = []
    const slow = lanes.run([1, 2], async () => {
      await new Promise((resolve) => setImmediate(resolve))
      order.push('first')
    })
    const late = lanes.run([2, 1], async () => {
      order.push('second')
    })
    await Promise.all([late, slow])

    expect(order).toEqual(['first', 'second'])
  })
})

describe('several lanes at once', () => {
  const lanes = () => [new Lane(), new Lane()] as const

  test('are all taken by an operation, which waits for what they do', async () => {
    const [one, two] = lanes()
    const gate = new Gate()
    const seen: string[] = []
    const before = two.run(async () => {
      await gate.opened
      seen.push('before')
    })
    const both = runInAll([one, two], async () => {
      seen.push('both')
    })
    const after = one.run(async () => {
      seen.push('after')
    })
    gate.open()
    await Promise.all([before, both, after])

    expect(seen).toEqual(['before', 'both', 'after'])
  })

  test('are taken at once where all are idle, and held until the operation ends', async () => {
    const [one, two] = lanes()
    const gate = new Gate()
    const both = runIfIdle([one, two], () => gate.opened)
    let isDone = false
    const after = two.run(async () => {
      isDone = true
    })

    expect(runIfIdle([one], async () => 'never')).toBeUndefined()
    expect(isDone).toBe(false)
    gate.open()
    await Promise.all([both, after])
    expect(await runIfIdle([one, two], async () => 'idle again')).toBe('idle again')
  })

  test('are let go of by an operation that fails', async () => {
    const [one, two] = lanes()

    await expect(runIfIdle([one, two], () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    await expect(runInAll([one, two], () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(await runInAll([one, two], async () => 'yes')).toBe('yes')
  })
})
