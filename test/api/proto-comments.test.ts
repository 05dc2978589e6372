// The comments of the protos against the code: roles, reasons and limits. They are what a client reads.

import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { POLICY_BY_PATH } from '../../src/api/call/method-policy.ts'
import { REASONS } from '../../src/base/error.ts'
import { LIMITS } from '../../src/base/limits.ts'

const FOLDER = new URL('../../proto/vfiod/v1/', import.meta.url)

const protos = readdirSync(FOLDER).map((file) => ({
  file,
  text: readFileSync(new URL(file, FOLDER), 'utf8'),
}))

/** A comment on one line. */
const joined = (lines: string): string => lines.replace(/\n? *\/\/ ?/g, ' ').trim()

interface Rpc {
  readonly path: string
  readonly comment: string
  readonly ofService: string
}

const COMMENT = '((?:^ *//.*\\n)*)'

const rpcs: Rpc[] = protos.flatMap(({ text }) =>
  [...text.matchAll(new RegExp(`${COMMENT}service (\\w+) \\{([^}]*)\\}`, 'gm'))].flatMap(
    ([, ofService = '', service, body = '']) =>
      [...body.matchAll(new RegExp(`${COMMENT} *rpc (\\w+)\\(`, 'gm'))].map(
        ([, comment = '', name]) => ({
          path: `/vfiod.v1.${service}/${name}`,
          comment: joined(comment),
          ofService: joined(ofService),
        }),
      ),
  ),
)

/** The role that a comment says a call needs. */
const roleIn = (comment: string): string | undefined => {
  const found = /\b[Nn]eeds:? (no role|role (\w+))/.exec(comment)
  return found === null ? undefined : (found[2] ?? 'none')
}

/** The names after "Errors": reasons, but for states in the explanations in parentheses. */
const reasonsIn = (comment: string): string[] =>
  [...comment.matchAll(/\bErrors\b[^:]*:(.*?)(?=\bErrors\b|$)/g)].flatMap(([, list = '']) => [
    ...(list.replace(/\([^)]*\)/g, '').match(/\b[A-Z]+(?:_[A-Z]+)+\b/g) ?? []),
  ])

const textOf = (wanted: string): string =>
  joined(protos.find(({ file }) => file === wanted)?.text ?? '').replace(/\s+/g, ' ')

describe('the comment of an RPC', () => {
  test('is there for every method', () => {
    expect(rpcs.map(({ path }) => path).sort()).toEqual([...POLICY_BY_PATH.keys()].sort())
    expect(rpcs.filter(({ comment }) => comment === '')).toEqual([])
  })

  test.each(rpcs)('names the role that $path needs', ({ path, comment, ofService }) => {
    expect(roleIn(comment) ?? roleIn(ofService)).toBe(POLICY_BY_PATH.get(path)?.role)
  })

  test('names reasons that there are', () => {
    const named = rpcs.flatMap(({ comment }) => reasonsIn(comment))
    const states = /^(PRE|STOP)_COPY/

    expect(named.length).toBeGreaterThan(100)
    expect(named.filter((name) => !(name in REASONS) && !states.test(name))).toEqual([])
  })
})

describe('a comment', () => {
  const MIB = 1 << 20

  test.each([
    ['address_space.proto', `(more than ${LIMITS.batchItems} items)`],
    ['address_space.proto', `A client has at most ${LIMITS.objectsPerClient} address spaces`],
    ['address_space.proto', `${LIMITS.vaddrInvalidMs} when zero, at most ${LIMITS.vaddrInvalidMs}`],
    ['address_space.proto', `at most ${LIMITS.idLength}); assigned when empty`],
    ['common.proto', `A client holds at most ${LIMITS.ticketsPerClient}`],
    ['device.proto', `(more than ${LIMITS.regionBytes / MIB} MiB)`],
    ['dirty.proto', `(more than ${LIMITS.batchItems} items)`],
    ['memory.proto', `A client has at most ${LIMITS.objectsPerClient} memory objects`],
    ['memory.proto', `at most 2^${LIMITS.allocateBytes.toString(2).length - 1}.`],
    ['migration.proto', `the last ${LIMITS.sessionWindowBytes / MIB} MiB`],
    ['ownership.proto', `${LIMITS.handoverMs} when zero, at most ${LIMITS.handoverMs}`],
    ['ownership.proto', `more than ${LIMITS.eventBacklog} events behind`],
  ])('of %s has the limit of the code: %s', (file, limit) => {
    expect(textOf(file)).toContain(limit)
  })
})
