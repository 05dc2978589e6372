/**
 * Two oracles of vfio.h: enum vfio_device_mig_state, neither of which shares code with the rule.
 * The first is the kernel's next-step table in our own notation: one row per current state, one
 * column per wanted state, each cell the state to go to first. The second tries every walk.
 */

import { describe, expect, test } from 'vitest'
import {
  hasState,
  isSaving,
  MIG_STATES,
  type MigFeatures,
  type MigState,
  pathOf,
  sessionEffect,
} from '../../src/rules/mig-arcs.ts'

const SHORT: Record<string, MigState> = {
  X: 'ERROR',
  S: 'STOP',
  R: 'RUNNING',
  C: 'STOP_COPY',
  L: 'RESUMING',
  Q: 'RUNNING_P2P',
  P: 'PRE_COPY',
  D: 'PRE_COPY_P2P',
}
const COLUMNS = 'S R P D C L Q'
const NEXT: Record<string, string> = {
  S: 'S Q Q Q C L Q',
  R: 'Q R P Q Q Q Q',
  P: 'R R P D D R R',
  D: 'Q Q P D C Q Q',
  C: 'S S X X C S S',
  L: 'S S S S S L S',
  Q: 'S R R D S S Q',
  X: 'X X X X X X X',
}

const state = (letter: string): MigState => SHORT[letter] as MigState
const letter = (of: MigState): string =>
  Object.keys(SHORT).find((key) => SHORT[key] === of) as string
const nextStep = (current: MigState, wanted: MigState): MigState => {
  const column = COLUMNS.split(' ').indexOf(letter(wanted))
  return state((NEXT[letter(current)] as string).split(' ')[column] ?? 'X')
}

/** Follows the table; a state that the device lacks is skipped by asking again from there. */
const tablePath = (from: MigState, to: MigState, features: MigFeatures): MigState[] | null => {
  if (!hasState(from, features) || !hasState(to, features) || to === 'ERROR') return null
  const path: MigState[] = []
  for (let current = from; current !== to; ) {
    let next = nextStep(current, to)
    while (!hasState(next, features)) next = nextStep(next, to)
    if (next === 'ERROR') return null
    path.push(next)
    current = next
  }
  return path
}

/** The arcs of the header's drawing, and those that skip a state the device lacks. */
const arcsOf = ({ p2p, preCopy }: MigFeatures): string[] =>
  [
    'SC CS SL LS',
    ...(p2p ? ['RQ QR QS SQ'] : ['RS SR']),
    ...(preCopy ? ['RP PR'] : []),
    ...(p2p && preCopy ? ['QD DQ PD DP DC'] : []),
    ...(!p2p && preCopy ? ['PC'] : []),
  ].flatMap((line) => line.split(' '))

/** Every walk without a repeated state, shortest first, that the rule in the header allows. */
const walks = (from: MigState, to: MigState, features: MigFeatures): MigState[][] => {
  const arcs = arcsOf(features)
  const found: MigState[][] = []
  let fronts: MigState[][] = [[from]]
  while (fronts.length > 0) {
    found.push(...fronts.filter((walk) => walk.at(-1) === to))
    fronts = fronts.flatMap((walk) =>
      arcs
        .filter((arc) => state(arc[0] as string) === walk.at(-1))
        .map((arc) => [...walk, state(arc[1] as string)])
        .filter((longer) => new Set(longer).size === longer.length),
    )
  }
  const stays = isSaving(from) && isSaving(to)
  return found
    .map((walk) => ({ walk, interior: walk.slice(1, -1) }))
    .filter(({ interior }) => interior.every((passed) => isSaving(passed) === stays))
    .map(({ walk }) => walk.slice(1))
}

const FLAG_SETS = [
  { flags: 1, p2p: false, preCopy: false },
  { flags: 3, p2p: true, preCopy: false },
  { flags: 5, p2p: false, preCopy: true },
  { flags: 7, p2p: true, preCopy: true },
] as const

const SETTABLE = MIG_STATES.filter((name) => name !== 'ERROR')

describe.each(FLAG_SETS)('pathOf, VFIO_DEVICE_FEATURE_MIGRATION flags $flags', (features) => {
  const pairs = MIG_STATES.flatMap((from) => MIG_STATES.map((to) => ({ from, to })))

  test.each(pairs)("$from to $to is the path of the kernel's next-step table", ({ from, to }) => {
    expect(pathOf(from, to, features)).toEqual(tablePath(from, to, features))
  })

  const present = SETTABLE.filter((name) => hasState(name, features))

  test('is the one shortest walk that the rule of the saving group allows', () => {
    for (const from of present) {
      for (const to of present) {
        const [shortest, second] = walks(from, to, features)
        expect(pathOf(from, to, features), `${from} to ${to}`).toEqual(shortest ?? null)
        if (shortest && second) expect(second.length).toBeGreaterThan(shortest.length)
      }
    }
  })

  test('opens at most one session, on its last arc', () => {
    for (const from of present) {
      for (const to of present) {
        const path = pathOf(from, to, features) ?? []
        const effects = path.map((step, index) => sessionEffect(path[index - 1] ?? from, step))
        expect(effects.slice(0, -1).filter((effect) => effect.startsWith('opens'))).toEqual([])
      }
    }
  })
})

describe('pathOf', () => {
  const all = { p2p: true, preCopy: true }

  test('from ERROR and to ERROR there is no way', () => {
    for (const other of MIG_STATES) {
      expect(pathOf('ERROR', other, all)).toBeNull()
      expect(pathOf(other, 'ERROR', all)).toBeNull()
    }
  })

  test('from STOP_COPY there is no way back into pre-copy', () => {
    expect(pathOf('STOP_COPY', 'PRE_COPY', all)).toBeNull()
    expect(pathOf('STOP_COPY', 'PRE_COPY_P2P', all)).toBeNull()
  })

  test('from RUNNING to STOP_COPY goes through P2P and STOP', () => {
    expect(pathOf('RUNNING', 'STOP_COPY', all)).toEqual(['RUNNING_P2P', 'STOP', 'STOP_COPY'])
  })
})

describe('sessionEffect', () => {
  test.each([
    ['RUNNING', 'PRE_COPY', 'opens-saving'],
    ['RUNNING_P2P', 'PRE_COPY_P2P', 'opens-saving'],
    ['STOP', 'STOP_COPY', 'opens-saving'],
    ['STOP', 'RESUMING', 'opens-resuming'],
    ['PRE_COPY', 'PRE_COPY_P2P', 'none'],
    ['PRE_COPY_P2P', 'PRE_COPY', 'none'],
    ['PRE_COPY_P2P', 'STOP_COPY', 'none'],
    ['PRE_COPY', 'STOP_COPY', 'none'],
    ['PRE_COPY', 'RUNNING', 'ends'],
    ['PRE_COPY_P2P', 'RUNNING_P2P', 'ends'],
    ['STOP_COPY', 'STOP', 'ends'],
    ['RESUMING', 'STOP', 'ends'],
    ['RUNNING', 'RUNNING_P2P', 'none'],
    ['STOP', 'RUNNING_P2P', 'none'],
  ] as const)('%s to %s: %s', (from, to, effect) => {
    expect(sessionEffect(from, to)).toBe(effect)
  })
})
