/** docs/conformance.md says where each selftest of the kernel is: each named test is there. */

import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

const root = new URL('..', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8')

const section =
  /## The kernel's own selftests\n(.*?)\n## /s.exec(read('docs/conformance.md'))?.[1] ?? ''
const rows = [...section.matchAll(/^\| ([a-z_, ]+) \| (.*) \|$/gm)]
  .slice(1)
  .map(([, cases = '', where = '']) => ({ cases: cases.split(', '), where }))
const located = rows.flatMap(({ cases, where }) => {
  const file = /^test\/\S+\.ts/.exec(where)?.[0]
  return file === undefined ? [] : cases.map((name): [string, string] => [name, file])
})

/** Whether the brackets at the end of a title, or the names of a table, have the case. */
const hasCase = (text: string, name: string): boolean =>
  new RegExp(`\\((?:[a-z_]+, )*${name}(?:[ ,][a-z_, ]*)?\\)['"\`]|^  ${name}: `, 'm').test(text)

describe("the table of the kernel's selftests", () => {
  test('has a file or a reason for each case, and each case once', () => {
    expect(rows.length).toBeGreaterThan(20)
    for (const { where } of rows) expect(where).toMatch(/^(test\/|none: )/)
    const names = rows.flatMap(({ cases }) => cases)
    expect(names.filter((name, at) => names.indexOf(name) !== at)).toEqual([])
  })

  test.each(located)('finds %s in %s', (name, file) => {
    expect(existsSync(new URL(file, root))).toBe(true)
    expect(hasCase(read(file), name)).toBe(true)
  })

  test('finds no case that is nowhere', () => {
    expect(hasCase(read('test/contract/iommufd-access-suite.ts'), 'access')).toBe(false)
    expect(hasCase(read('test/contract/iommufd-access-suite.ts'), 'copy_sweep')).toBe(false)
  })
})
