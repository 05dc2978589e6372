/**
 * From connections to clients. Identity comes from the kernel alone: who connected, and in which
 * mm that process runs. A client is an mm, so the connections of one process, and of processes that
 * share one mm (vfork children), are one client.
 *
 * A client ends when the last of its processes has exited or has become another image (exec). The
 * loss of a connection ends nothing: a client may reconnect and finds what it owned.
 *
 * A connected socket is a capability: whoever it was left or passed to calls in the name of the
 * process that connected, until that one is gone. HTTP/2 over a stream does not tell who wrote.
 */
import { errnoName } from '../base/errno.ts'
import { VfiodError } from '../base/error.ts'
import type { Client } from '../domain/identity/clients.ts'
import type { Payer } from '../domain/identity/quotas.ts'
import { type MmPin, pinMm } from '../os/mm.ts'
import { credentialsOf, type Peer, peerOf, sameMm } from '../os/peer.ts'
import { unwatch, watch } from '../os/poller.ts'
import { closeAll } from '../os/unix-socket.ts'
import { type Grant, NOTHING, type Identity as PolicyIdentity } from '../rules/policy.ts'

/** One process of a client; it stays known for as long as it runs. */
interface Process {
  readonly pid: number
  readonly startTime: bigint
  readonly pidfd: number
  readonly pin: MmPin
  readonly client: LocalClient
}

class LocalClient implements Client {
  readonly id: string
  readonly pid: number
  readonly uid: number
  readonly gid: number
  readonly command: string
  readonly identity: string
  /** Supplementary groups. */
  readonly groups: readonly number[]
  readonly #grantOf: GrantOf
  /** Invariant: every one of them shares the mm. Empty once the client is gone. */
  readonly processes = new Set<Process>()

  constructor(id: string, peer: Peer, grantOf: GrantOf) {
    this.id = id
    this.#grantOf = grantOf
    this.groups = peer.groups
    this.pid = peer.pid
    this.uid = peer.uid
    this.gid = peer.gid
    this.command = peer.comm
    this.identity = identityOf(peer)
  }

  /** Asked at each use: the policy may have been reloaded. */
  get grant(): Grant {
    return this.#grantOf({ kind: 'local', uid: this.uid, gids: [this.gid, ...this.groups] })
  }

  isCurrent(): boolean {
    for (const { pin } of this.processes) if (pin.isCurrent()) return true
    return false
  }
}

/** What the policy grants an identity at this moment. */
export type GrantOf = (identity: PolicyIdentity) => Grant

/** Told of every client that is gone, once. */
export type Release = (client: Client, why: string) => void

/** A connection's process, or why it has none. */
export type Identity = Process | VfiodError

export class Peers {
  readonly #processes = new Map<string, Process>()
  readonly #release: Release
  readonly #grantOf: GrantOf
  #clientsSeen = 0

  /** `release` is told of every client that is gone, once. */
  constructor(parts: { readonly release: Release; readonly grantOf: GrantOf }) {
    this.#release = parts.release
    this.#grantOf = parts.grantOf
  }

  /** Every client that is there. */
  clients(): Client[] {
    return [...new Set([...this.#processes.values()].map(({ client }) => client))]
  }

  /** Whose quota a connected socket counts against: asked of the socket alone, at little cost. */
  payerOf(socketFd: number): Payer {
    const found = credentialsOf(socketFd)
    if (typeof found === 'number') return NOBODY
    const { uid, gid, groups } = found
    const grant = this.#grantOf({ kind: 'local', uid, gids: [gid, ...groups] })
    return { identity: identityOf(found), grant }
  }

  /** Who is at the other end of a connected socket. */
  identify(socketFd: number): Identity {
    const peer = peerOf(socketFd)
    if (typeof peer === 'number') return unknownPeer(`the kernel answered ${errnoName(-peer)}`)
    const key = keyOf(peer)
    const known = this.#processes.get(key)
    if (known?.pin.isCurrent()) {
      void closeAll([peer.pidfd])
      return known
    }
    if (known !== undefined) this.#forget(known, 'it runs another image')
    return this.#learn(key, peer)
  }

  /** The client that calls through a connection: its process must still be what it was. */
  current(identity: Identity): Client {
    if (identity instanceof VfiodError) throw identity
    if (this.#isKnown(identity) && identity.pin.isCurrent()) return identity.client
    this.#forget(identity, 'it runs another image')
    throw unknownPeer('the process that connected has exited or runs another image')
  }

  /** A connection is closed; when its process runs another image by now, nobody else would tell. */
  disconnected(identity: Identity): void {
    if (identity instanceof VfiodError || !this.#isKnown(identity)) return
    if (!identity.pin.isCurrent()) this.#forget(identity, 'it runs another image or has exited')
  }

  /** Stops watching; nothing is released. */
  close(): void {
    for (const process of this.#processes.values()) this.#drop(process)
  }

  #learn(key: string, peer: Peer): Identity {
    const pin = pinMm(peer.pid, { pidfd: peer.pidfd })
    if (typeof pin === 'number') {
      void closeAll([peer.pidfd])
      return unknownPeer(`its memory cannot be pinned (${errnoName(-pin)})`)
    }
    const client = this.#clientWithMmOf(peer) ?? this.#newClient(peer)
    const process = { pid: peer.pid, startTime: peer.startTime, pidfd: peer.pidfd, pin, client }
    this.#processes.set(key, process)
    client.processes.add(process)
    watch(peer.pidfd, () => this.#forget(process, 'it has exited'))
    return process
  }

  #newClient(peer: Peer): LocalClient {
    this.#clientsSeen += 1
    return new LocalClient(`${peer.pid}-${this.#clientsSeen}`, peer, this.#grantOf)
  }

  #clientWithMmOf(peer: Peer): LocalClient | undefined {
    for (const { pid, pin, client } of this.#processes.values()) {
      if (sameMm(pid, peer.pid) === true && pin.isCurrent()) return client
    }
    return undefined
  }

  #isKnown(process: Process): boolean {
    return this.#processes.get(keyOf(process)) === process
  }

  #forget(process: Process, why: string): void {
    if (!this.#isKnown(process)) return
    this.#drop(process)
    if (process.client.processes.size === 0) this.#release(process.client, why)
  }

  #drop(process: Process): void {
    this.#processes.delete(keyOf(process))
    process.client.processes.delete(process)
    unwatch(process.pidfd)
    void closeAll([process.pidfd])
    process.pin.close()
  }
}

/** The supplementary groups of a client; none for one on another host. */
export const groupsOf = (client: Client): readonly number[] =>
  client instanceof LocalClient ? client.groups : []

const identityOf = ({ uid }: { readonly uid: number }): string => `uid ${uid}`

/** A socket of which the kernel tells nothing. */
const NOBODY: Payer = { identity: 'nobody known', grant: NOTHING }

/** No two processes of one boot have the same pid and the same start. */
const keyOf = ({ pid, startTime }: { readonly pid: number; readonly startTime: bigint }): string =>
  `${pid}@${startTime}`

const unknownPeer = (found: string): VfiodError =>
  new VfiodError(
    'UNKNOWN_PEER',
    `Cannot tell who calls: ${found}; connect from a process of this host that is still running`,
  )
