// Plain English: which words are not used, and what to write instead. A room is listed once all of it
// is plain, and stays so. Checked is everything a person reads: comments and messages, protos,
// documents; of tests, their names.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

interface Word {
  readonly word: RegExp
  readonly instead: string
  /** A text with the word. */
  readonly bad: string
  /** The same said plainly. */
  readonly good: string
}

const WORDS: readonly Word[] = [
  {
    word: /\bwhat (?:is|are|was|were) (?:mapped|written|asked|told|kept|tracked|watched|opened|released|registered|allocated|recorded|held|sent|taken|armed|pending|pinned|unread|handed over|under way)\b/,
    instead: 'the noun: the mapped pages, the request, the reported pages',
    bad: 'reports what is mapped',
    good: 'reports the mapped ranges. What is wrong with it?',
  },
  {
    word: /\bwho(?:ever|soever)\b/,
    instead: 'the holder, the caller, the process that',
    bad: 'whoever presents it',
    good: 'the client that presents it',
  },
  {
    word: /\bnobody\b/,
    instead: 'no process, no client, no device: name the actor',
    bad: 'nobody tracks it',
    good: 'tracking is off',
  },
  {
    word: /\bsomebody\b/,
    instead: 'another client, a process, a user: name the actor',
    bad: 'the id is somebody else’s',
    good: 'the id belongs to another client',
  },
  {
    word: /\b(?:told|tell|tells|telling) of\b/,
    instead: 'reported, reports',
    bad: 'a page that was told of',
    good: 'a page that was reported; it tells the reader',
  },
  {
    word: /\b(?:hears?|heard) (?:of|from)\b/,
    instead: 'receives, the last activity of',
    bad: 'when nothing is heard of it',
    good: 'after its last activity',
  },
  {
    word: /\bthings\b/,
    instead: 'resources, objects, or their name',
    bad: 'releases its things',
    good: 'releases its resources',
  },
  {
    word: /\bmistakes? of ours\b|\bour own mistakes?\b/,
    instead: 'a bug',
    bad: 'a mistake of ours',
    good: 'a bug',
  },
  {
    word: /\bof (?:its|their|his) own\b/,
    instead: 'its own X, a separate X, or nothing',
    bad: 'a lane of its own',
    good: 'its own lane',
  },
  {
    word: /\bon (?:its|their|the) way\b(?! (?:up|down|in|out|back)\b)/,
    instead: 'in flight, in transit, being sent',
    bad: 'a message on its way',
    good: 'a message in flight; what is in the way; on the way up',
  },
  {
    word: /(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b|later\b|earlier\b|larger\b|smaller\b|one\b|way\b)[a-z]+/,
    instead: 'is not a',
    bad: 'it is no message of its type',
    good: 'it is not a message of its type; there is no message; it is no longer open',
  },
  {
    word: /\b(?:spoils?|spoiled)\b/,
    instead: 'blocks, keeps from being viable',
    bad: 'the device that spoils the group',
    good: 'the device that keeps the group from being viable',
  },
  {
    word: /\b(?:fails?|succeeds?|each|item) for itself\b/,
    instead: 'independently',
    bad: 'each item fails for itself',
    good: 'each item fails independently',
  },
  {
    word: /\bin good order\b/,
    instead: 'gracefully',
    bad: 'ends in good order',
    good: 'shuts down gracefully, in order',
  },
  {
    word: /\bstands? in the way\b/,
    instead: 'blocks, prevents',
    bad: 'what stands in the way',
    good: 'what blocks it',
  },
]

/** Whole files, or folders with all that is in them. */
const DONE: readonly string[] = [
  ...['proto/vfiod', 'docs', 'README.md', 'STYLE.md', 'CONTRIBUTING.md', 'SECURITY.md', 'src'],
]

/** Folders of tests whose names are done. */
const NAMES_DONE: readonly string[] = ['test']

const filesBelow = (path: string): string[] =>
  statSync(path).isDirectory()
    ? readdirSync(path, { withFileTypes: true }).flatMap((entry) =>
        filesBelow(join(path, entry.name)),
      )
    : [path]

const filesOf = (rooms: readonly string[]): string[] =>
  rooms
    .flatMap((room) => filesBelow(join(ROOT, room)))
    .filter((file) => /\.(ts|proto|md)$/.test(file))

/** The text with the marks of comments and line ends blank, so that a phrase may cross a line. */
const flat = (text: string): string =>
  text.replace(/\n[ \t]*(?:\*(?!\/)|\/\/|#)?[ \t]*/g, (gap) => ' '.repeat(gap.length))

const NAME = /\b(?:test|describe)(?:\.[a-z]+(?:\([^)]*\))?)*\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g

/** The text with everything but the names of tests blank. */
const namesOnly = (text: string): string => {
  const kept = [...text.matchAll(NAME)].map(({ 2: name = '', index, 0: all }) => {
    const from = index + all.lastIndexOf(name)
    return { from, name }
  })
  let blank = text.replace(/[^\n]/g, ' ')
  for (const { from, name } of kept)
    blank = blank.slice(0, from) + name + blank.slice(from + name.length)
  return blank
}

const spaced = ({ source }: RegExp): RegExp => new RegExp(source.replaceAll(' ', '\\s+'), 'gi')

const PATTERNS = WORDS.map(({ word, instead }) => ({ pattern: spaced(word), instead }))

/** `src/base/lane.ts:12: "nobody"; write: no process`. */
function wordsIn(file: string, text: string): string[] {
  const plain = flat(text)
  return PATTERNS.flatMap(({ pattern, instead }) =>
    [...plain.matchAll(pattern)].map(({ index, 0: found }) => {
      const line = text.slice(0, index).split('\n').length
      return `${relative(ROOT, file)}:${line}: "${found.replace(/\s+/g, ' ')}"; write: ${instead}`
    }),
  )
}

const read = (file: string): string => readFileSync(file, 'utf8')

describe('plain English', () => {
  test.each(WORDS)('finds "$bad" and lets "$good" pass', ({ word, bad, good }) => {
    expect(bad).toMatch(spaced(word))
    expect(good).not.toMatch(spaced(word))
  })

  test('finds a phrase that crosses a line of a comment', () => {
    expect(wordsIn(join(ROOT, 'a.ts'), 'x\n  // it was told\n  // of by\n')).toEqual([
      'a.ts:2: "told of"; write: reported, reports',
    ])
  })

  test('is kept in the rooms that are done', () => {
    expect(filesOf(DONE).flatMap((file) => wordsIn(file, read(file)))).toEqual([])
  })

  test('is kept in the names of tests that are done', () => {
    expect(filesOf(NAMES_DONE).flatMap((file) => wordsIn(file, namesOnly(read(file))))).toEqual([])
  })
})
