/**
 * From connections to clients. Identity comes from the kernel alone. Credentials belong to the
 * connection: who its process was when it connected. Ownership belongs to the mm that the process
 * runs in: the connections of one process, and of processes that share one mm (vfork children), are
 * one client, and each is judged by its own credentials.
 *
 * A client ends when the last of its processes has exited or has become another image (exec), and
 * only on proof of it: a look that fails refuses the call and releases nothing. The loss of a
 * connection ends nothing: a client may reconnect and finds what it owned.
 *
 * A connected socket is a capability: the process that it was left or passed to calls in the name of
 * the process that connected, until that one is gone. HTTP/2 over a stream does not tell who wrote.
 */
import { ERRNO, errnoName } from '../../base/errno.ts'
import { VfiodError } from '../../base/error.ts'
import { type Client, PROCESS_LEASE } from '../../domain/identity/clients.ts'
import type { Charge, QuotaHolder, Quotas } from '../../domain/identity/quotas.ts'
import { isOutOfSight, peerRefusal, type Seen } from '../../domain/identity/unknown-peer.ts'
import { keepFdReserve } from '../../os/fd-reserve.ts'
import { type MmPin, pinMm } from '../../os/mm.ts'
import {
  type Credentials,
  credentialsOf,
  hasExited,
  type Peer,
  peerOf,
  sameMm,
} from '../../os/peer.ts'
import { unwatch, watch } from '../../os/poller.ts'
import { closeAll } from '../../os/unix-socket.ts'
import { type Grant, NO_GRANT } from '../../rules/policy.ts'
import { processId } from './client-id.ts'
import {
  accountOf,
  type ConnectionPeer,
  type GrantOf,
  type Payer,
  type Release,
} from './connection-peer.ts'
import type { Log } from './log.ts'

/** The processes that share an mm: what a local client is. */
interface Mm {
  /** The client with the credentials of its first connection: what it owned is released for it. */
  readonly client: Client
  /** Invariant: each of them shares the mm. Empty once the client is gone. */
  readonly processes: Set<Process>
}

/** One process of a client; it stays known for as long as it runs. */
interface Process {
  readonly key: string
  readonly pid: number
  readonly pidfd: number
  readonly pin: MmPin
  readonly mm: Mm
  /** Whose quota it counts against. */
  readonly charge: Charge
}

/** The process at the other end of a connected socket. */
export class LocalPeer implements ConnectionPeer {
  readonly identity: string
  readonly account: string
  readonly #credentials: Credentials
  readonly #peers: Peers
  readonly #grantOf: GrantOf
  /** The process while it is not pinned, or why there is none. */
  #found: Peer | VfiodError
  #pinned: { readonly process: Process; readonly client: Client } | undefined

  constructor(
    credentials: Credentials,
    found: Peer | VfiodError,
    parts: { readonly peers: Peers; readonly grantOf: GrantOf },
  ) {
    this.#credentials = credentials
    this.#found = found
    this.#peers = parts.peers
    this.#grantOf = parts.grantOf
    this.identity = identityOf(credentials)
    this.account = accountOf(this.identity, this.grant)
  }

  get grant(): Grant {
    return grantTo(this.#credentials, this.#grantOf)
  }

  /** The client, once the process is pinned. */
  get client(): Client | undefined {
    return this.#pinned?.client
  }

  current(): Client {
    if (this.#pinned === undefined) {
      if (this.#found instanceof VfiodError) throw this.#found
      // It can own nothing, so there is nothing to watch its process for.
      if (this.grant.role === 'none') return this.#peers.unpinned(this.#found)
      this.#pinned = this.#peers.pin(this.#found, this)
      // The pidfd is the process's now.
      this.#found = UNKNOWN
      return this.#pinned.client
    }
    this.#peers.requireCurrent(this.#pinned.process)
    return this.#pinned.client
  }

  requireAlive(): void {
    if (this.#pinned === undefined && this.#found instanceof VfiodError) throw this.#found
    const { pidfd } = this.#pinned?.process ?? (this.#found as Peer)
    if (this.#pinned === undefined ? hasExited(pidfd) : !this.#peers.isAlive(this.#pinned.process))
      throw unknownPeer('the process that connected has exited')
  }

  disconnected(): void {
    if (this.#pinned !== undefined) this.#peers.disconnected(this.#pinned.process)
    else if (!(this.#found instanceof VfiodError)) void closeAll([this.#found.pidfd])
    this.#found = UNKNOWN
  }
}

export class Peers {
  readonly #processes = new Map<string, Process>()
  readonly #release: Release
  readonly #grantOf: GrantOf
  readonly #quotas: Quotas
  readonly #log: Log
  readonly #giveUpReserve = keepFdReserve()

  constructor(parts: {
    readonly release: Release
    readonly grantOf: GrantOf
    readonly quotas: Quotas
    readonly log: Log
  }) {
    this.#release = parts.release
    this.#grantOf = parts.grantOf
    this.#quotas = parts.quotas
    this.#log = parts.log
  }

  /** Every client that is there. */
  clients(): Client[] {
    return [...new Set([...this.#processes.values()].map(({ mm }) => mm.client))]
  }

  /** Whose quota a connected socket counts against: asked of the socket alone, at little cost. */
  payerOf(socketFd: number): Payer {
    const found = credentialsOf(socketFd)
    if (typeof found === 'number') return UNKNOWN_PAYER
    const grant = grantTo(found, this.#grantOf)
    const identity = identityOf(found)
    return { identity, account: accountOf(identity, grant), grant }
  }

  /**
   * The other end of a connected socket; undefined where its process is gone already. The process is
   * pinned when the connection is made, unless the policy grants it nothing: then at the first call
   * that it may make.
   */
  at(socketFd: number): LocalPeer | undefined {
    const found = peerOf(socketFd)
    const credentials = credentialsOf(socketFd)
    const isHidden = typeof credentials !== 'number' && isOutOfSight(credentials)
    if (found === -ERRNO.ESRCH && !isHidden) {
      const { identity } = this.payerOf(socketFd)
      this.#log.info({ identity }, 'connection closed: its process is gone')
      return undefined
    }
    const peer = new LocalPeer(
      typeof credentials === 'number' ? NO_CREDENTIALS : credentials,
      typeof found === 'number' ? peerRefusal(found, seenIn(credentials)) : found,
      { peers: this, grantOf: this.#grantOf },
    )
    if (peer.grant.role !== 'none') this.#pinNow(peer)
    return peer
  }

  #pinNow(peer: LocalPeer): void {
    try {
      peer.current()
    } catch (error) {
      if (!(error instanceof VfiodError)) throw error
      // The first call asks again, and is answered with what is found then.
      this.#log.warn({ identity: peer.identity, refusal: error.message }, 'peer not identified')
    }
  }

  /** Make sure that the process is known and pinned; takes over its pidfd unless it throws. */
  pin(peer: Peer, payer: QuotaHolder): { readonly process: Process; readonly client: Client } {
    const key = keyOf(peer)
    const known = this.#processes.get(key)
    if (known !== undefined && this.#isCurrent(known)) {
      void closeAll([peer.pidfd])
      return { process: known, client: this.#clientOf(known.mm, peer) }
    }
    const process = this.#learn(key, peer, payer)
    return { process, client: this.#clientOf(process.mm, peer) }
  }

  /** Whether the process is known and has not exited. */
  isAlive(process: Process): boolean {
    return this.#isKnown(process) && !hasExited(process.pidfd)
  }

  /** A client that is granted nothing: it is told who it is, and not remembered. */
  unpinned(peer: Peer): Client {
    return this.#clientFor(peer, processId(peer, ''))
  }

  /** Throw unless the process still runs the image that connected. */
  requireCurrent(process: Process): void {
    if (this.#isKnown(process) && this.#isCurrent(process)) return
    throw unknownPeer('the process that connected has exited or runs another image')
  }

  /** A connection is closed: the last chance to notice that its process runs another image. */
  disconnected(process: Process): void {
    if (!this.#isKnown(process)) return
    try {
      this.#isCurrent(process)
    } catch (error) {
      if (!(error instanceof VfiodError)) throw error
    }
  }

  /** Stops watching; nothing is released. */
  close(): void {
    for (const process of this.#processes.values()) this.#drop(process)
    this.#giveUpReserve()
  }

  /** Whether the process is what it was. It is forgotten on proof that it is not; throws where it
   * cannot be looked at. */
  #isCurrent(process: Process): boolean {
    const found = process.pin.look()
    if (found === 'current') return true
    const isExited = hasExited(process.pidfd)
    if (isExited || found === 'gone') {
      this.#forget(process, isExited ? 'it has exited' : 'it runs another image or has exited')
      return false
    }
    const { pid, mm } = process
    const error = notChecked(found)
    this.#log.error({ client: mm.client.id, pid, refusal: error.message }, 'peer not checked')
    throw error
  }

  #learn(key: string, peer: Peer, payer: QuotaHolder): Process {
    const charge = this.#quotas.charge(payer, PLACE)
    try {
      const pin = pinMm(peer.pid, { pidfd: peer.pidfd })
      if (typeof pin === 'number') throw peerRefusal(pin, peer)
      const { pid, pidfd } = peer
      const mm = this.#mmOf(peer, pin.image) ?? {
        client: this.#clientFor(peer, processId(peer, pin.image)),
        processes: new Set(),
      }
      const process: Process = { key, pid, pidfd, pin, mm, charge }
      const watched = watch(pidfd, () => {
        if (hasExited(pidfd)) this.#forget(process, 'it has exited')
      })
      if (watched < 0) {
        pin.close()
        throw notChecked(watched)
      }
      this.#processes.set(key, process)
      mm.processes.add(process)
      return process
    } catch (error) {
      charge.release()
      throw error
    }
  }

  #clientFor(peer: Peer, id: string): Client {
    return localClient(peer, { id, grantOf: this.#grantOf })
  }

  /** The client of an mm, with the credentials of this connection where they are others. */
  #clientOf({ client }: Mm, peer: Peer): Client {
    const { origin } = client
    const isSame = origin.kind === 'process' && isSameUser(origin, peer)
    return isSame ? client : this.#clientFor(peer, client.id)
  }

  /** kcmp waits for an exec of either process, so only relatives are asked: they have one image. */
  #mmOf(peer: Peer, image: string): Mm | undefined {
    for (const process of this.#processes.values()) {
      if (process.pin.image !== image) continue
      if (sameMm(process.pid, peer.pid) === true && process.pin.look() === 'current')
        return process.mm
    }
    return undefined
  }

  #isKnown(process: Process): boolean {
    return this.#processes.get(process.key) === process
  }

  #forget(process: Process, why: string): void {
    if (!this.#isKnown(process)) return
    this.#drop(process)
    const { client, processes } = process.mm
    if (processes.size === 0) void this.#release(client, why)
  }

  #drop(process: Process): void {
    this.#processes.delete(process.key)
    process.mm.processes.delete(process)
    unwatch(process.pidfd)
    void closeAll([process.pidfd])
    process.pin.close()
    process.charge.release()
  }
}

const PLACE = { processes: 1n } as const

/** A client with the credentials of one of its connections. */
const localClient = (
  peer: Peer,
  { id, grantOf }: { readonly id: string; readonly grantOf: GrantOf },
): Client => {
  const { pid, uid, gid, groups, comm: command } = peer
  const identity = identityOf(peer)
  return {
    id,
    identity,
    account: accountOf(identity, grantTo(peer, grantOf)),
    origin: { kind: 'process', pid, uid, gid, groups, command },
    lease: PROCESS_LEASE,
    get grant() {
      return grantTo(peer, grantOf)
    },
  }
}

type UserIds = Pick<Credentials, 'uid' | 'gid' | 'groups'>

const isSameUser = (one: UserIds, other: UserIds): boolean =>
  one.uid === other.uid &&
  one.gid === other.gid &&
  one.groups.length === other.groups.length &&
  one.groups.every((group, index) => group === other.groups[index])

const identityOf = ({ uid }: { readonly uid: number }): string => `uid ${uid}`

const grantTo = ({ uid, gid, groups }: UserIds, grantOf: GrantOf): Grant =>
  grantOf({ kind: 'local', uid, gids: [gid, ...groups] })

/** A socket of which the kernel tells nothing is not that of a process out of sight. */
const seenIn = (credentials: Credentials | number): Seen =>
  typeof credentials === 'number' ? { pid: -1, uid: -1 } : credentials

const UNKNOWN_PAYER: Payer = { identity: 'unknown', account: 'unknown', grant: NO_GRANT }

/** What a socket has of which the kernel tells nothing: the overflow ids, which no rule is for. */
const NO_CREDENTIALS: Credentials = { pid: 0, uid: 0xffff_ffff, gid: 0xffff_ffff, groups: [] }

/** No two processes of one boot have the same pid and the same start. */
const keyOf = ({ pid, startTime }: { readonly pid: number; readonly startTime: bigint }): string =>
  `${pid}@${startTime}`

const unknownPeer = (found: string): VfiodError =>
  new VfiodError(
    'UNKNOWN_PEER',
    `Cannot identify the caller: ${found}; connect from a process of this host that is still running`,
  )

const UNKNOWN = unknownPeer('the connection is closed')

/** Looking failed, which says nothing about the process. */
const notChecked = (errno: number): VfiodError =>
  new VfiodError(
    'PEER_NOT_CHECKED',
    `Cannot check the calling process: the kernel answered ${errnoName(-errno)}; repeat the call, nothing was released`,
    { errno: errnoName(-errno) },
  )
