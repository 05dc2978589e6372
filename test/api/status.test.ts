// What an error becomes, and that the README tells it as it is.

import { readFileSync } from 'node:fs'
import { status } from '@grpc/grpc-js'
import { describe, expect, test } from 'vitest'
import { REASONS, type Reason, VfiodError } from '../../src/base/error.ts'
import { STATUS, toStatusObject, toVfiodError } from '../../src/wire/status.ts'
import { DETAILS_KEY, decodeStatus } from '../../src/wire/status-details.ts'

const read = (name: string): string =>
  readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8')

describe('an error', () => {
  test.each(Object.keys(REASONS) as Reason[])(
    'with reason %s has a status that is no OK',
    (reason) => {
      expect(status[STATUS[reason]]).toBeTypeOf('string')
      expect(STATUS[reason]).not.toBe(status.OK)
    },
  )

  test('is answered with the status of its reason, its message, and its details', () => {
    const answer = toStatusObject(
      new VfiodError('GROUP_IN_USE', 'Cannot add group 3: it is in use', { errno: 'EBUSY' }),
    )

    expect(answer.code).toBe(status.FAILED_PRECONDITION)
    expect(answer.details).toBe('Cannot add group 3: it is in use')
    expect(decodeStatus(answer.metadata.get(DETAILS_KEY)[0] as Buffer)).toEqual({
      code: status.FAILED_PRECONDITION,
      message: 'Cannot add group 3: it is in use',
      reason: 'GROUP_IN_USE',
      details: { errno: 'EBUSY' },
    })
  })

  test.each([
    ['EBUSY', 16],
    ['ENOENT', 2],
    ['EACCES', 13],
  ])('of Node with errno %s never passes its number off as a status', (code, errno) => {
    const error = Object.assign(new Error('secret path /root/x'), {
      code: errno,
      errno: -errno,
      name: code,
    })

    const answer = toStatusObject(toVfiodError(error))

    expect(answer.code).toBe(status.INTERNAL)
    expect(answer.details).not.toContain('secret')
    expect(JSON.stringify(answer.metadata.getMap())).not.toContain('secret')
  })

  test('that is not a VfiodError is BUG, with the original as its cause for the log', () => {
    const original = new TypeError('x is not a function')

    const error = toVfiodError(original)

    expect(error.reason).toBe('BUG')
    expect(error.cause).toBe(original)
  })
})

describe('the README', () => {
  test('has a row for every reason, with its status and advice, and no other', () => {
    const rows = (Object.keys(REASONS) as Reason[]).map(
      (reason) => `| ${reason} | ${status[STATUS[reason]]} | ${REASONS[reason]} |`,
    )

    expect(read('README.md').match(/^\| [A-Z_]+ \|.*$/gm)).toEqual(rows)
  })

  test('sends its readers to docs/errors.md for how to read them', () => {
    expect(read('README.md')).toContain('docs/errors.md')
  })
})
