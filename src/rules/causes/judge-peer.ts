/** Why the process at the other end of a socket cannot be looked at. */

import type { CauseId } from './catalog.ts'
import { ruledOut, type Verdict } from './cause.ts'

/** Undefined is what cannot be told. */
export interface PeerFacts {
  /** 0 for a process that the pid namespace of the daemon does not show. */
  readonly pid: number
  readonly uid: number
  readonly daemonUid: number
  /** Whether the process runs, asked of its pidfd. */
  readonly isAlive: boolean | undefined
  /** Whether the daemon has CAP_SYS_PTRACE. */
  readonly hasPtrace: boolean
  /** kernel.yama.ptrace_scope; 0 on a kernel without Yama. */
  readonly yama: number | undefined
  /** Whether the /proc of the daemon is mounted with hidepid=. */
  readonly isHidepid: boolean | undefined
}

export function judgePeer(facts: PeerFacts): Verdict<CauseId>[] {
  return [...judgeAbsent(facts), ...judgeDenied(facts)]
}

/** ESRCH: it is not there, or not to be seen. */
function judgeAbsent({ pid, isAlive, isHidepid }: PeerFacts): Verdict<CauseId>[] {
  if (pid === 0) {
    return [
      {
        cause: 'peer-other-pid-namespace',
        isSo: true,
        found:
          'the calling process is in a pid namespace that the daemon does not see: the kernel gives its pid as 0',
      },
    ]
  }
  const verdicts = ruledOut<CauseId>('peer-other-pid-namespace')
  if (isHidepid === false) verdicts.push(...ruledOut<CauseId>('peer-hidden'))
  if (isAlive === false) {
    const found = `the process that connected, pid ${pid}, has exited`
    verdicts.push({ cause: 'peer-exited', isSo: true, found })
  } else if (isAlive === true && isHidepid === true) {
    const found = `/proc is mounted with hidepid= and hides pid ${pid}, which runs, from the daemon`
    verdicts.push({ cause: 'peer-hidden', isSo: true, found })
  }
  return verdicts
}

/** EACCES: it is there, and the daemon may not look. */
function judgeDenied({ pid, uid, daemonUid, hasPtrace, yama }: PeerFacts): Verdict<CauseId>[] {
  if (hasPtrace) return ruledOut('peer-no-ptrace', 'peer-yama')
  if (uid !== daemonUid) {
    return [
      {
        cause: 'peer-no-ptrace',
        isSo: true,
        found: `pid ${pid} belongs to uid ${uid} and the daemon runs as uid ${daemonUid} without CAP_SYS_PTRACE, which it needs to pin a process of another user`,
      },
    ]
  }
  // Of processes of the same user, only what Yama or the process itself protects is denied.
  return ruledOut('peer-no-ptrace', ...(yama === 0 ? (['peer-yama'] as const) : []))
}
