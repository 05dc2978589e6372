/** Claims to the one open file of a group. */

import { expect, test } from 'vitest'
import { Gate } from '../../src/base/gate.ts'
import { GroupClaims } from '../../src/domain/iommu/group-claims.ts'

const patient = ({ ended }: { readonly ended: Promise<void> }): Promise<void> => ended

test('a claim lasts until it is ended, and says what it is for', () => {
  const claims = new GroupClaims()
  const end = claims.take([3, 4], 'a reset')

  expect(claims.of(3)?.what).toBe('a reset')
  expect(claims.of(5)).toBeUndefined()
  end()
  expect(claims.of(4)).toBeUndefined()
})

test('an operation on a group waits until no claim of it is left, and claims it meanwhile', async () => {
  const claims = new GroupClaims()
  const end = claims.take([3], 'a reset')
  const gate = new Gate()
  const seen: string[] = []
  const use = (what: string) => {
    const operation = async () => {
      seen.push(what)
      expect(claims.of(3)?.what).toBe(what)
      await gate.opened
    }
    return claims.use(3, what, operation, patient)
  }
  const uses = [use('one'), use('two')]
  expect(seen).toEqual([])

  end()
  gate.open()
  await Promise.all(uses)

  expect(seen).toEqual(['one', 'two'])
  expect(claims.of(3)).toBeUndefined()
})

test('one that will not wait longer does nothing', async () => {
  const claims = new GroupClaims()
  const end = claims.take([3], 'a reset')
  const impatient = () => Promise.reject(new Error('not done'))

  await expect(claims.use(3, 'an attachment', async () => 'done', impatient)).rejects.toThrow(
    'not done',
  )
  end()
  expect(await claims.use(3, 'an attachment', async () => 'done', impatient)).toBe('done')
})
