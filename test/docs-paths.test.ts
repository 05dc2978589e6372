/** The documents: every path of the checkout that they name exists, and a word is defined once. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const documents = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

const textOf = (document: string): string => readFileSync(join(ROOT, document), 'utf8')

/** A path from the root, as documents and drawings write it; not one inside a longer path. */
const PATH =
  /(?<![\w./-])(?:\.ci|bench|docs|proto|scripts|src|systemd|test)\/[\w./@-]*[\w/](?:\*|[A-Z]+\b)?/g

/** `src/cli/commands/NOUN.ts` stands for files to come, `test/api/*.ts` for several: their folder. */
const existing = (path: string): string =>
  /\*|(^|\/)[A-Z]{2,}(\.|$)/.test(path) ? dirname(path) : path

/** What a run leaves behind, and git does not keep. */
const isMade = (path: string): boolean => path.startsWith('bench/out/')

/** Targets of links to other files: `[x](docs/errors.md#part)` -> `docs/errors.md`. */
const linksOf = (text: string): string[] =>
  [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)].map(([, target = '']) => target)

describe('a document', () => {
  test.each(documents)('%s names paths that exist', (document) => {
    const missing = [...textOf(document).matchAll(PATH)]
      .map(([path]) => path)
      .filter((path) => !isMade(path) && !existsSync(join(ROOT, existing(path))))

    expect(missing).toEqual([])
  })

  test.each(documents)('%s links to files that exist', (document) => {
    const missing = linksOf(textOf(document)).filter(
      (target) => !existsSync(join(ROOT, dirname(document), target)),
    )

    expect(missing).toEqual([])
  })

  test('docs/architecture.md names enough paths for the test to mean something', () => {
    expect([...textOf('docs/architecture.md').matchAll(PATH)].length).toBeGreaterThan(50)
  })
})

describe('a word', () => {
  const TABLE = /^\| word \| meaning \|\n\|[-|]+\|\n((?:\|.*\n)+)/gm
  const rows = [...textOf('docs/glossary.md').matchAll(TABLE)].flatMap(([, table = '']) =>
    table.trim().split('\n'),
  )
  const words = rows.map((row) => row.split('|')[1]?.trim() ?? '')

  test('is defined once', () => {
    expect(words.filter((word, index) => words.indexOf(word) !== index)).toEqual([])
    expect(words.length).toBeGreaterThan(40)
  })

  test('is defined in the glossary, and in no other document', () => {
    const others = documents
      .filter((document) => document !== 'docs/glossary.md')
      .filter((document) => /^\| word \| meaning \|/m.test(textOf(document)))

    expect(others).toEqual([])
    expect(textOf('README.md')).toContain('docs/glossary.md')
  })
})
