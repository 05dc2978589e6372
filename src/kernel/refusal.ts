/**
 * Translates the `-errno` of a kernel into the one VfiodError. This is the only reader of errno above
 * the backends. An errno has several causes (rules/causes/table.ts): the refusal names all of them
 * until facts prove one or rule some out (diagnosis.ts).
 */

import { ERRNO, errnoName } from '../base/errno.ts'
import { type Details, type Reason, VfiodError } from '../base/error.ts'
import { rlimit } from '../os/limits.ts'
import { CAUSES, type CauseId } from '../rules/causes/catalog.ts'
import type { Proof, Verdict } from '../rules/causes/cause.ts'
import { causesOf, type KernelOperation, reasonFor } from '../rules/causes/table.ts'

/** What a kernel was asked for, and what it answered. */
interface Asked {
  readonly operation: string
  readonly errno: string
  /** What was tried, to follow "Cannot". */
  readonly act: string
  readonly details: Details
}

/** A negative answer of a kernel, with the causes that it can have. */
export class KernelRefusal extends VfiodError {
  readonly operation: string
  readonly errno: string
  /** The likeliest first; none where the errno is unexpected. */
  readonly causes: readonly CauseId[]
  readonly #asked: Asked

  constructor(asked: Asked, said: { readonly reason: Reason; readonly message: string } & Details) {
    const { reason, message, ...found } = said
    super(reason, message, { op: asked.operation, errno: asked.errno, ...asked.details, ...found })
    this.operation = asked.operation
    this.errno = asked.errno
    this.causes = (found.causes ?? []) as readonly CauseId[]
    this.#asked = asked
  }

  /** The same refusal once facts are known: of the cause they prove, or without those they rule out. */
  judged(verdicts: readonly Verdict<CauseId>[]): KernelRefusal {
    const own = verdicts.filter(({ cause }) => this.causes.includes(cause))
    const proofs = own.filter((verdict) => verdict.isSo)
    if (proofs.length > 0) return new KernelRefusal(this.#asked, proved(this.#asked, proofs))
    const out = new Set(own.map(({ cause }) => cause))
    const remaining = this.causes.filter((cause) => !out.has(cause))
    if (remaining.length === this.causes.length) return this
    return new KernelRefusal(this.#asked, possible(this.#asked, remaining))
  }
}

const answered = ({ act, errno, operation }: Asked): string =>
  `Cannot ${act}: the kernel answered ${errno} to ${operation}`

/** What is said while nothing is proved: the one cause, every cause, or that there is none. */
function possible(asked: Asked, causes: readonly CauseId[]) {
  const reason = reasonFor(asked.operation, asked.errno, causes)
  const [only] = causes
  if (only === undefined) {
    const known = causesOf(asked.operation, asked.errno).length > 0
    const found = known ? 'and none of the known causes is so' : 'which is unexpected'
    return {
      reason,
      message: `${answered(asked)}, ${found}; see the kernel log, and report it`,
    }
  }
  if (causes.length === 1) {
    const { found, fix } = CAUSES[only]
    return { reason, causes, message: `${answered(asked)}, because ${found}; ${fix}` }
  }
  const each = causes.map((id) => `${CAUSES[id].found}; ${CAUSES[id].fix}`).join('. Or ')
  return { reason, causes, message: `${answered(asked)}. Either ${each}` }
}

/** What is said of causes that are proved; several can be so at once. */
function proved({ act }: Asked, proofs: readonly Proof<CauseId>[]) {
  const [first] = proofs as readonly [Proof<CauseId>]
  const each = proofs.map(({ cause, found, fix }) => `${found}; ${fix ?? CAUSES[cause].fix}`)
  const blockers = proofs.flatMap((proof) => proof.blockers ?? [])
  const { quota, resource } = first
  return {
    reason: CAUSES[first.cause].reason,
    message: `Cannot ${act}: ${each.join('. Also, ')}`,
    causes: proofs.map(({ cause }) => cause),
    ...(blockers.length === 0 ? {} : { blockers }),
    ...(quota === undefined ? {} : { quota }),
    ...(resource === undefined ? {} : { resource }),
  }
}

/** Whether an answer is this one errno: `isErrno(answer, 'EBUSY')`. */
export const isErrno = (answer: number, name: keyof typeof ERRNO): boolean =>
  answer === -ERRNO[name]

/**
 * Pass on what an operation answered, or throw the refusal it stands for.
 *
 * @param act what was tried, to follow "Cannot": `map iova 0x1000..0x1fff`
 */
export function accept(
  operation: KernelOperation,
  answer: number,
  act: string,
  details?: Details,
): number {
  if (answer >= 0) return answer
  throw refusal(operation, answer, act, details)
}

/** The error for a negative answer; see accept. The operations of requests are their C names. */
export function refusal(
  operation: KernelOperation | (string & {}),
  answer: number,
  act: string,
  details: Details = {},
): KernelRefusal {
  const asked = { operation, errno: errnoName(-answer), act, details }
  const causes = causesOf(operation, asked.errno)
  const refused = new KernelRefusal(asked, possible(asked, causes))
  return asked.errno === 'EMFILE' ? refused.judged(outOfFds()) : refused
}

/** An answer above zero that says how many there are instead of those that were asked for. */
export function tooFew(
  operation: string,
  act: string,
  { asked, available }: { readonly asked: number; readonly available: number },
): VfiodError {
  return new VfiodError(
    'LIMIT_REACHED',
    `Cannot ${act}: ${asked} were asked for and the host has ${available} to give, so nothing was done; ask for ${available} at most, or free some that other devices hold`,
    {
      op: operation,
      quota: {
        limit: `what ${operation} can have on this host`,
        max: BigInt(available),
        current: 0n,
        needed: BigInt(asked),
      },
    },
  )
}

/** An answer above zero where only zero is a success. */
export const unexpected = (operation: string, answer: number, act: string): VfiodError =>
  new VfiodError(
    'KERNEL_REFUSED',
    `Cannot ${act}: the kernel answered ${answer} to ${operation}, where only 0 means that it was done`,
    { op: operation },
  )

/** A region access that moved fewer bytes than it was asked to. */
export const short = (
  operation: string,
  act: string,
  { asked, moved }: { readonly asked: number; readonly moved: number },
): VfiodError =>
  new VfiodError(
    'OUT_OF_REGION',
    `Cannot ${act}: the device moved ${moved} of ${asked} bytes; use accesses of 1, 2, 4 or 8 bytes inside the region`,
    { op: operation },
  )

/**
 * EMFILE: fds are real ones of this process in both backends, so it is this process that has too many.
 * How many needs no counting, which would take an fd: every number below the limit is in use.
 */
function outOfFds(): Verdict<CauseId>[] {
  const limit = rlimit('nofile')
  if (typeof limit === 'number') return []
  const { current: max } = limit
  return [
    {
      cause: 'fds-exhausted',
      isSo: true,
      found: `the daemon has ${max} open files, which is its RLIMIT_NOFILE`,
      quota: { limit: 'RLIMIT_NOFILE of the daemon', max, current: max, needed: 1n },
    },
  ]
}

/** Whether an error came from a kernel saying this errno. */
export const wasErrno = (error: unknown, name: keyof typeof ERRNO): error is VfiodError =>
  error instanceof VfiodError && error.details.errno === name
