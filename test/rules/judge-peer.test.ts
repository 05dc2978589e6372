import { describe, expect, test } from 'vitest'
import { judgePeer, type PeerFacts } from '../../src/rules/causes/judge-peer.ts'

const facts = (changes: Partial<PeerFacts> = {}): PeerFacts => ({
  pid: 812,
  uid: 1000,
  daemonUid: 990,
  isAlive: true,
  hasPtrace: true,
  yama: 0,
  isHidepid: false,
  ...changes,
})

const proved = (changes: Partial<PeerFacts>) =>
  judgePeer(facts(changes))
    .filter(({ isSo }) => isSo)
    .map(({ cause }) => cause)

describe('a process that cannot be looked at', () => {
  test.each([
    ['peer-other-pid-namespace', { pid: 0, isAlive: undefined }],
    ['peer-exited', { isAlive: false }],
    ['peer-hidden', { isHidepid: true }],
    ['peer-no-ptrace', { hasPtrace: false }],
  ])('has the cause %s', (cause, changes) => {
    expect(proved(changes)).toEqual([cause])
  })

  test('of the same user is not kept back by a missing CAP_SYS_PTRACE', () => {
    const verdicts = judgePeer(facts({ uid: 990, hasPtrace: false, yama: 1 }))

    expect(verdicts).toContainEqual({ cause: 'peer-no-ptrace', isSo: false })
    expect(verdicts.some(({ cause }) => cause === 'peer-yama')).toBe(false)
  })

  test('is not kept back by Yama where that is off', () => {
    const verdicts = judgePeer(facts({ uid: 990, hasPtrace: false, yama: 0 }))

    expect(verdicts).toContainEqual({ cause: 'peer-yama', isSo: false })
  })

  test('that runs and is hidden by nothing rules out namespaces and hidepid', () => {
    expect(judgePeer(facts()).map(({ cause }) => cause)).toEqual([
      'peer-other-pid-namespace',
      'peer-hidden',
      'peer-no-ptrace',
      'peer-yama',
    ])
  })
})
