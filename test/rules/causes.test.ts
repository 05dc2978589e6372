// The table of refusals: every operation of the daemon, every errno, every cause; and its document.

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ERRNO, type ErrnoName } from '../../src/base/errno.ts'
import { REASONS } from '../../src/base/error.ts'
import { refusal } from '../../src/kernel/refusal.ts'
import { CAUSES, type CauseId } from '../../src/rules/causes/catalog.ts'
import { causesOf, type KernelOperation, reasonFor, TABLE } from '../../src/rules/causes/table.ts'
import { MESSAGE_MAX } from '../../src/wire/status-details.ts'

interface CellAt {
  readonly operation: KernelOperation
  readonly errno: ErrnoName
  readonly causes: readonly CauseId[]
}

const CELLS: readonly CellAt[] = (Object.keys(TABLE) as KernelOperation[]).flatMap((operation) =>
  (Object.keys(TABLE[operation]) as ErrnoName[]).map((errno) => ({
    operation,
    errno,
    causes: causesOf(operation, errno),
  })),
)

/** A long act, as a batch of a client may have it. */
const ACT = 'map iova 0xffff000000000000..0xffff7fffffffffff of 0x800000000000 bytes'

describe('the table of refusals', () => {
  test('has at least one cause in every cell, each once', () => {
    for (const { operation, errno, causes } of CELLS) {
      expect(causes.length, `${operation} ${errno}`).toBeGreaterThan(0)
      expect(new Set(causes).size, `${operation} ${errno}`).toBe(causes.length)
      expect(ERRNO[errno], `${operation} ${errno}`).toBeTypeOf('number')
    }
  })

  test('uses every cause of the catalog that an errno can have', () => {
    const used = new Set<string>(CELLS.flatMap(({ causes }) => causes))
    // Found after a probe that went well, so there is no errno.
    const withoutErrno = ['dynamic-id', 'other-driver-took']

    expect(Object.keys(CAUSES).filter((id) => !used.has(id))).toEqual(withoutErrno)
  })

  test('takes for several causes a reason of one of them, or none of theirs', () => {
    for (const { operation, errno, causes } of CELLS) {
      const reasons: readonly string[] = causes.map((id) => CAUSES[id].reason)
      const reason = reasonFor(operation, errno, causes)

      expect(reason in REASONS).toBe(true)
      if (reason !== 'KERNEL_REFUSED') expect(reasons, `${operation} ${errno}`).toContain(reason)
    }
  })

  test('calls nothing a bug that has another cause as well', () => {
    expect(CELLS.filter(({ causes }) => causes.includes('bug') && causes.length > 1)).toEqual([])
  })

  test.each(CELLS)('$operation $errno: all causes fit into a message', (cell) => {
    const { message } = refusal(cell.operation, -ERRNO[cell.errno], ACT)

    // How many files are open is known at once.
    const isProved = cell.errno === 'EMFILE'
    for (const id of isProved ? [] : cell.causes) expect(message).toContain(CAUSES[id].found)
    expect(encodeURI(message).length).toBeLessThanOrEqual(MESSAGE_MAX)
  })
})

describe('a cause', () => {
  test.each(Object.entries(CAUSES))('%s has two plain clauses', (_, { found, fix }) => {
    for (const clause of [found, fix]) {
      expect(clause).not.toMatch(/[.;]\s*$/)
      expect(clause.length).toBeGreaterThan(5)
    }
    expect(found).not.toContain(';')
  })
})

const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`

/** The document with its two tables made anew; the text around them is written by hand. */
const page = (): string => {
  const causes = Object.entries(CAUSES).map(([id, { reason, found, fix }]) =>
    line([`\`${id}\``, reason, found, fix]),
  )
  const rows = CELLS.map(({ operation, errno, causes: ids }) => {
    const names = ids.map((id) => `\`${id}\``).join(', ')
    return line([`${operation}`, errno, names, reasonFor(operation, errno, ids)])
  })
  const tables = [
    [
      line(['cause', 'reason', 'what was found', 'what to do']),
      line(Array(4).fill('---')),
      ...causes,
    ],
    [line(['operation', 'errno', 'causes', 'reason of all']), line(Array(4).fill('---')), ...rows],
  ].map((lines) => lines.join('\n'))
  const text = readFileSync(new URL('../../docs/refusals.md', import.meta.url), 'utf8')
  return text.replace(/^\|.*$(\n\|.*$)*/gm, () => tables.shift() ?? '')
}

test('docs/refusals.md has the table as it is (npx vitest -u writes it)', async () => {
  await expect(page()).toMatchFileSnapshot('../../docs/refusals.md')
})
