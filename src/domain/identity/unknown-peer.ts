/** Why a process that calls is not a client: what the kernel said to a look at it, and its cause. */

import { ERRNO } from '../../base/errno.ts'
import { VfiodError } from '../../base/error.ts'
import { refusal } from '../../kernel/refusal.ts'
import { sys } from '../../os/libc.ts'
import { isAlive, openPidfd, readProc } from '../../os/process.ts'
import { judgePeer, type PeerFacts } from '../../rules/causes/judge-peer.ts'

/** Which process it is, as its socket says. */
export interface Seen {
  readonly pid: number
  readonly uid: number
}

/**
 * UNKNOWN_PEER where the process is gone, hidden, or not to be looked at; PEER_NOT_CHECKED where the
 * look failed, which says nothing about the process.
 */
export function peerRefusal(
  answer: number,
  seen: Seen,
  looks: { readonly hasPtrace: boolean },
): VfiodError {
  const isAnswer = [ERRNO.ESRCH, ERRNO.EACCES, ERRNO.EPERM].some((errno) => answer === -errno)
  const refused = refusal(
    'look at the peer',
    answer,
    isAnswer ? 'identify the caller' : 'check the calling process',
  )
  if (isAnswer) return refused.judged(judgePeer(peerFacts(seen, looks)))
  const { message, details } = refused
  return new VfiodError(
    'PEER_NOT_CHECKED',
    `${message}. Repeat the call: nothing was released`,
    details,
  )
}

function peerFacts({ pid, uid }: Seen, { hasPtrace }: { readonly hasPtrace: boolean }): PeerFacts {
  const scope = readProc('/proc/sys/kernel/yama/ptrace_scope')
  return {
    pid,
    uid,
    daemonUid: process.geteuid?.() ?? 0,
    isAlive: pid === 0 ? undefined : isRunning(pid),
    hasPtrace,
    yama: typeof scope === 'number' ? 0 : Number(scope),
    isHidepid: isHidepid(readProc('/proc/self/mounts')),
  }
}

/** Whether the process is there, but not for this daemon: in another pid namespace, or hidden by /proc. */
export const isOutOfSight = ({ pid }: Seen): boolean =>
  pid === 0 || (isRunning(pid) === true && readProc(`/proc/${pid}/stat`) === -ERRNO.ENOENT)

/** A pidfd can be had of a process that /proc hides. */
function isRunning(pid: number): boolean | undefined {
  const pidfd = openPidfd(pid)
  if (pidfd === -ERRNO.ESRCH) return false
  if (pidfd < 0) return undefined
  const runs = isAlive(pidfd)
  sys.closeSync(pidfd)
  return runs
}

/** proc(5): `hidepid=0` and `off` hide nothing. */
const isHidepid = (mounts: string | number): boolean | undefined => {
  if (typeof mounts === 'number') return undefined
  const options = /^\S+ \/proc proc (\S+)/m.exec(mounts)?.[1]
  return options === undefined ? undefined : /\bhidepid=(?!0|off)/.test(options)
}
