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
import { Lanes } from '../../base/lane.ts'
import { OneLook } from '../../base/one-look.ts'
import { type Client, PROCESS_LEASE } from '../../domain/identity/clients.ts'
import type { Charge, QuotaHolder, Quotas } from '../../domain/identity/quotas.ts'
import { isOutOfSight, peerRefusal, type Seen } from '../../domain/identity/unknown-peer.ts'
import { keepFdReserve } from '../../os/fd-reserve.ts'
import type { MmFinding } from '../../os/mm.ts'
import { type Credentials, credentialsOf, hasExited, type Peer, peerOf } from '../../os/peer.ts'
import { unwatch, watch } from '../../os/poller.ts'
import type { ProcessLooks, ProcessPin } from '../../os/process-looks.ts'
import { onAccountOf } from '../../os/thread-shares.ts'
import { closeAll } from '../../os/unix-socket.ts'
import { type Grant, NO_GRANT } from '../../rules/policy.ts'
import { processId } from './client-id.ts'
import { accountOf, type GrantOf, type Payer, type Release } from './connection-peer.ts'
import {
  identityOf,
  LocalPeer,
  type PinnedProcess,
  type Processes,
  unknownPeer,
} from './local-peer.ts'
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
  readonly pin: ProcessPin
  readonly looks: OneLook<MmFinding>
  readonly mm: Mm
  /** Whose quota it counts against. */
  readonly charge: Charge
}

export class Peers implements Processes<Process> {
  readonly #processes = new Map<string, Process>()
  readonly #release: Release
  readonly #grantOf: GrantOf
  readonly #quotas: Quotas
  readonly #log: Log
  readonly #looks: ProcessLooks
  /** Processes that are being pinned, by their key. */
  readonly #learning = new Map<string, Promise<Process>>()
  /** By image, which relatives that share an mm have in common: each finds those before it. */
  readonly #lanes = new Lanes<string>()
  /** By account. */
  readonly #pins = new Lanes<string>()
  readonly #giveUpReserve = keepFdReserve()
  #isClosed = false

  constructor(parts: {
    readonly release: Release
    readonly grantOf: GrantOf
    readonly quotas: Quotas
    readonly log: Log
    readonly looks: ProcessLooks
  }) {
    this.#looks = parts.looks
    this.#release = parts.release
    this.#grantOf = parts.grantOf
    this.#quotas = parts.quotas
    this.#log = parts.log
  }

  /** What the policy grants the credentials of a connection at this moment. */
  grantTo(credentials: Credentials): Grant {
    return grantTo(credentials, this.#grantOf)
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
  at(socketFd: number): LocalPeer<Process> | undefined {
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
      typeof found === 'number' ? this.#refusal(found, seenIn(credentials)) : found,
      this,
    )
    // The first call asks again where it fails, and is answered with what is found then.
    peer
      .pin()
      .catch((error: unknown) =>
        this.#log.warn({ identity: peer.identity, refusal: textOf(error) }, 'peer not identified'),
      )
    return peer
  }

  /** Make sure that the process is known and pinned. Its pidfd becomes that of what is answered, unless
   * the process was known by another one. */
  async pin(peer: Peer, payer: QuotaHolder): Promise<Pinned> {
    const key = keyOf(peer)
    const known = this.#processes.get(key)
    const isCurrent = known !== undefined && (await this.#isCurrent(known))
    const process = isCurrent ? known : await this.#learnOnce(key, peer, payer)
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
  async check(process: Process): Promise<void> {
    if (!this.#isKnown(process) || !(await this.#isCurrent(process))) throw NOT_CURRENT
  }

  /** Throw where the process has been forgotten, since a check perhaps. */
  requireKnown(process: Process): void {
    if (!this.#isKnown(process)) throw NOT_CURRENT
  }

  /** A connection is closed: the last chance to notice that its process runs another image. */
  disconnected(process: Process): void {
    if (this.#isKnown(process)) void this.#isCurrent(process).catch(() => undefined)
  }

  /** Stops watching; nothing is released. */
  close(): void {
    this.#isClosed = true
    for (const process of this.#processes.values()) this.#drop(process)
    this.#giveUpReserve()
  }

  /** Whether the process is what it was. It is forgotten on proof that it is not; throws where it
   * cannot be looked at. */
  async #isCurrent(process: Process): Promise<boolean> {
    const found = await process.looks.take().catch((error: unknown) => error)
    if (!this.#isKnown(process)) return false
    if (found === 'current') return true
    const isExited = hasExited(process.pidfd)
    if (isExited || found === 'gone') {
      this.#forget(process, isExited ? 'it has exited' : 'it runs another image or has exited')
      return false
    }
    const { pid, mm } = process
    const error = typeof found === 'number' ? notChecked(found) : found
    this.#log.error({ client: mm.client.id, pid, refusal: textOf(error) }, 'peer not checked')
    throw error
  }

  #learnOnce(key: string, peer: Peer, payer: QuotaHolder): Promise<Process> {
    const learning =
      this.#learning.get(key) ??
      this.#learn(key, peer, payer).finally(() => this.#learning.delete(key))
    this.#learning.set(key, learning)
    return learning
  }

  async #learn(key: string, peer: Peer, payer: QuotaHolder): Promise<Process> {
    const charge = this.#quotas.charge(payer, PLACE)
    try {
      // A process can make its pin wait: it waits for those of its account.
      const { account } = payer
      const look = () => onAccountOf(account, () => this.#looks.pin(peer))
      const pin = await this.#pins.run([account], look)
      if (typeof pin === 'number') throw this.#refusal(pin, peer)
      try {
        return await this.#lanes.run([pin.image], () => this.#enter(key, peer, { pin, charge }))
      } catch (error) {
        pin.close()
        throw error
      }
    } catch (error) {
      charge.release()
      throw error
    }
  }

  async #enter(
    key: string,
    peer: Peer,
    { pin, charge }: Pick<Process, 'pin' | 'charge'>,
  ): Promise<Process> {
    const shared = await this.#mmOf(peer, pin.image)
    if (this.#isClosed) throw NOT_CURRENT
    // The last of its processes may have gone during the look.
    const isThere = shared !== undefined && shared.processes.size > 0
    const mm = isThere
      ? shared
      : { client: this.#clientFor(peer, processId(peer, pin.image)), processes: new Set<Process>() }
    const { pid, pidfd } = peer
    const looks = new OneLook(() => pin.look())
    const process: Process = { key, pid, pidfd, pin, looks, mm, charge }
    const watched = watch(pidfd, () => {
      if (hasExited(pidfd)) this.#forget(process, 'it has exited')
    })
    if (watched < 0) throw notChecked(watched)
    this.#processes.set(key, process)
    mm.processes.add(process)
    return process
  }

  #refusal(errno: number, seen: Seen): VfiodError {
    return peerRefusal(errno, seen, this.#looks)
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
  async #mmOf(peer: Peer, image: string): Promise<Mm | undefined> {
    for (const process of [...this.#processes.values()]) {
      if (process.pin.image !== image || !this.#isKnown(process)) continue
      if ((await this.#looks.sameMm(process, peer)) !== true) continue
      if ((await process.looks.take()) === 'current') return process.mm
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

type Pinned = PinnedProcess<Process>

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

const NOT_CURRENT = unknownPeer('the process that connected has exited or runs another image')

const textOf = (error: unknown): string => (error instanceof Error ? error.message : `${error}`)

/** Looking failed, which says nothing about the process. */
const notChecked = (errno: number): VfiodError =>
  new VfiodError(
    'PEER_NOT_CHECKED',
    `Cannot check the calling process: the kernel answered ${errnoName(-errno)}; repeat the call, nothing was released`,
    { errno: errnoName(-errno) },
  )
