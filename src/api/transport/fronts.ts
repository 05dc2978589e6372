/**
 * The fronts: processes that speak with clients, one for each account, so that a client can abort, freeze
 * or bloat only its own. Those of accounts without a role share one, remote clients another. A front that
 * ends costs its connections and nothing else; the next one of its account is started with the next
 * connection, later each time it ends soon.
 */
import type { VfiodError } from '../../base/error.ts'
import { FROM_OWNER, HOW_TO_CLOSE } from '../../link/frames.ts'
import type { GivenConnection } from '../../link/records.ts'
import type { Payer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import type { Disposal } from './disposal.ts'
import { FrontLink, type LinkRules, type Owned } from './front-link.ts'
import type { RunningFront, StartFront } from './running-front.ts'

/** Fronts that run at once: each is a process with its memory. Accounts beyond them share one more. */
export const FRONTS_MAX = 32

/** Processes of one key that were ended and are not gone: what a client passed keeps them in the kernel. */
export const LINGERING_MAX = 4

/** How long a front without connections is kept. */
const IDLE_MS = 300_000

/** How long to wait before a front is started again that ended: more each time, until it lived long. */
const BACK_OFF = { firstMs: 50, lastMs: 2000, forgottenMs: 60_000 } as const

/** Connections that wait for a front to be started again. */
const WAITING_MAX = 256

/** How long fronts get to close their connections. */
const END_MS = 1000

interface Front {
  readonly key: string
  readonly link: FrontLink
  readonly kill: () => void
  readonly started: number
  idle: NodeJS.Timeout | undefined
  isEnding: boolean
}

/** A connection that was given to a front, or waits for one. */
export interface GivenTo {
  /** At once, or when the calls that are under way are answered. */
  close(isAtOnce: boolean): void
  /** Answer every call of it with this. */
  refuse(refusal: VfiodError): void
}

interface Failures {
  count: number
  /** When the next may be started. */
  until: number
}

export class Fronts {
  readonly #start: StartFront
  readonly #disposal: Disposal
  readonly #rules: LinkRules
  readonly #log: Log
  readonly #fronts = new Map<string, Front>()
  readonly #failures = new Map<string, Failures>()
  /** Processes of each key that have not exited. */
  readonly #lingering = new Map<string, number>()
  readonly #waiting = new Set<() => void>()
  readonly #gone = new Set<() => void>()
  #certificates: Buffer | undefined
  #isServing = true
  #lastId = 0
  #isClosed = false

  constructor(parts: {
    readonly start: StartFront
    readonly disposal: Disposal
    readonly rules: LinkRules
    readonly log: Log
  }) {
    this.#disposal = parts.disposal
    this.#start = parts.start
    this.#rules = parts.rules
    this.#log = parts.log
  }

  /**
   * Give a connection to the front of this key. Its socket is this object's to close; `owned.closed` is
   * called when the connection has ended, which may be at once.
   */
  give(key: string, given: GivenConnection, owned: Owned, fd: number): GivenTo {
    const { connection } = given
    let link: FrontLink | undefined
    let giveUp = (): void => {}
    const waitMs = (this.#failures.get(key)?.until ?? 0) - performance.now()
    if (this.#fronts.has(key) || waitMs <= 0) link = this.#giveNow(key, given, owned, fd)
    else {
      const timer = setTimeout(() => {
        this.#waiting.delete(giveUp)
        link = this.#giveNow(key, given, owned, fd)
      }, waitMs)
      giveUp = () => {
        clearTimeout(timer)
        if (!this.#waiting.delete(giveUp)) return
        this.#disposal.socket(fd)
        owned.closed()
      }
      this.#waiting.add(giveUp)
      if (this.#waiting.size > WAITING_MAX) [...this.#waiting][0]?.()
    }
    return {
      close: (isAtOnce) => {
        giveUp()
        link?.closeConnection(
          connection,
          isAtOnce ? HOW_TO_CLOSE.atOnce : HOW_TO_CLOSE.afterAnswers,
        )
      },
      refuse: (refusal) => link?.refuse(connection, refusal),
    }
  }

  /** Numbers a connection, among those of all fronts. */
  nextId(): number {
    this.#lastId = (this.#lastId % 0xffff_ffff) + 1
    return this.#lastId
  }

  /** The key of the front for an account. */
  keyOf({ account, grant }: Payer): string {
    return grant.role === 'none' ? UNGRANTED : account
  }

  /** Health checks answer NOT_SERVING from now on. */
  notServing(): void {
    this.#isServing = false
    for (const { link } of this.#fronts.values()) link.say(FROM_OWNER.serving, Buffer.of(0))
  }

  /** What the front of remote clients serves them with. */
  setCertificates(json: Buffer): void {
    this.#certificates = json
    this.#fronts.get(REMOTE)?.link.say(FROM_OWNER.certificates, json)
  }

  /** Ends all of them: in order where they do it in time. */
  async close(): Promise<void> {
    this.#isClosed = true
    for (const giveUp of this.#waiting) giveUp()
    for (const { link, idle } of this.#fronts.values()) {
      clearTimeout(idle)
      link.say(FROM_OWNER.end, Buffer.alloc(0))
    }
    const allGone = new Promise<void>((resolve) => {
      const look = () => {
        if (this.#fronts.size === 0) resolve()
      }
      this.#gone.add(look)
      look()
    })
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, END_MS)
    })
    await Promise.race([allGone, late])
    clearTimeout(timer)
    for (const { link, kill } of [...this.#fronts.values()]) {
      link.end('the daemon ends')
      kill()
    }
  }

  #giveNow(key: string, given: GivenConnection, owned: Owned, fd: number): FrontLink | undefined {
    const front = this.#isClosed ? undefined : this.#of(key)
    if (front === undefined) {
      owned.closed()
      this.#disposal.socket(fd)
      return undefined
    }
    clearTimeout(front.idle)
    front.link.give(given, { ...owned, closed: () => this.#closed(front, owned) }, fd)
    return front.link
  }

  #closed(front: Front, owned: Owned): void {
    owned.closed()
    if (front.link.size > 0 || this.#isClosed) return
    front.idle = setTimeout(() => this.#retire(front), IDLE_MS)
    front.idle.unref()
  }

  /** Ends a front that has nothing to do. */
  #retire(front: Front): void {
    front.isEnding = true
    front.link.say(FROM_OWNER.end, Buffer.alloc(0))
    this.#forget(front)
  }

  #forget(front: Front): void {
    if (this.#fronts.get(front.key) === front) this.#fronts.delete(front.key)
    for (const look of this.#gone) look()
  }

  #of(wanted: string): Front | undefined {
    const known = this.#fronts.get(wanted)
    if (known !== undefined) return known
    if (this.#fronts.size >= FRONTS_MAX) this.#makeRoom()
    const isFull = this.#fronts.size >= FRONTS_MAX
    const key = isFull ? OTHERS : wanted
    return this.#fronts.get(key) ?? this.#started(key)
  }

  #started(key: string): Front | undefined {
    const lingering = this.#lingering.get(key) ?? 0
    if (lingering >= LINGERING_MAX) {
      this.#log.warn({ front: key, lingering }, 'front not started: former ones are not gone')
      return undefined
    }
    let front: Front | undefined
    let running: RunningFront
    try {
      running = this.#start((how) => {
        this.#exited(key)
        if (front?.isEnding === false && !this.#isClosed)
          this.#log.warn({ front: key, how }, 'front exited')
        front?.link.end('it has exited')
      })
    } catch (error) {
      const waitMs = this.#failed(key)
      this.#log.error({ front: key, why: messageOf(error), waitMs }, 'front not started')
      return undefined
    }
    this.#lingering.set(key, lingering + 1)
    const { memory, kill, ...channels } = running
    const link = new FrontLink({
      channels,
      disposal: this.#disposal,
      memory,
      rules: this.#rules,
      onEnd: (why) => {
        kill()
        if (front !== undefined) this.#ended(front, why)
      },
    })
    front = { key, link, kill, started: performance.now(), idle: undefined, isEnding: false }
    this.#fronts.set(key, front)
    if (!this.#isServing) link.say(FROM_OWNER.serving, Buffer.of(0))
    if (key === REMOTE && this.#certificates !== undefined)
      link.say(FROM_OWNER.certificates, this.#certificates)
    return front
  }

  #exited(key: string): void {
    const left = (this.#lingering.get(key) ?? 1) - 1
    if (left === 0) this.#lingering.delete(key)
    else this.#lingering.set(key, left)
  }

  #makeRoom(): void {
    for (const front of this.#fronts.values()) {
      if (front.link.size > 0) continue
      clearTimeout(front.idle)
      this.#retire(front)
      return
    }
  }

  #ended(front: Front, why: string): void {
    const { key, started } = front
    clearTimeout(front.idle)
    this.#forget(front)
    if (front.isEnding || this.#isClosed) return
    const waitMs = this.#failed(key, performance.now() - started)
    this.#log.warn({ front: key, why, waitMs }, 'front ended')
  }

  /** The next front of this key is started in so many milliseconds, at the earliest. */
  #failed(key: string, livedMs = 0): number {
    const known = this.#failures.get(key)
    const count = livedMs > BACK_OFF.forgottenMs ? 1 : (known?.count ?? 0) + 1
    const waitMs = Math.min(BACK_OFF.firstMs * 2 ** (count - 1), BACK_OFF.lastMs)
    this.#failures.set(key, { count, until: performance.now() + waitMs })
    return waitMs
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)

/** The key of the front that serves remote clients. */
export const REMOTE = 'remote clients'
/** The key of the front that serves those whom the policy grants nothing. */
export const UNGRANTED = 'clients without a role'
/** The key of the front that accounts share which have none. */
const OTHERS = 'accounts beyond the number of fronts'
