/** The process at the other end of a connected socket, from the first look at it to the end of the connection. */
import { VfiodError } from '../../base/error.ts'
import type { Client } from '../../domain/identity/clients.ts'
import type { QuotaHolder } from '../../domain/identity/quotas.ts'
import { type Credentials, hasExited, type Peer } from '../../os/peer.ts'
import { closeAll } from '../../os/unix-socket.ts'
import type { Grant } from '../../rules/policy.ts'
import { accountOf, type ConnectionPeer } from './connection-peer.ts'

/** A process that is known, and the client that a connection of it calls for. */
export interface PinnedProcess<Process> {
  readonly process: Process
  readonly client: Client
}

/** What a peer asks of the list of processes (peers.ts). */
export interface Processes<Process> {
  grantTo(credentials: Credentials): Grant
  pin(peer: Peer, payer: QuotaHolder): Promise<PinnedProcess<Process>>
  /** Throws unless the process still runs the image that connected. */
  check(process: Process): Promise<void>
  /** Throws where the process is not known any more. */
  requireKnown(process: Process): void
  isAlive(process: Process): boolean
  unpinned(peer: Peer): Client
  disconnected(process: Process): void
}

export class LocalPeer<Process extends { readonly pidfd: number } = { readonly pidfd: number }>
  implements ConnectionPeer
{
  readonly identity: string
  readonly account: string
  readonly #credentials: Credentials
  readonly #processes: Processes<Process>
  /** The process while it is not pinned, or why there is none. */
  #found: Peer | VfiodError
  #pinned: PinnedProcess<Process> | undefined
  /** Invariant: while it is under way, the pidfd of what was found stays open. */
  #pinning: Promise<void> | undefined

  constructor(credentials: Credentials, found: Peer | VfiodError, processes: Processes<Process>) {
    this.#credentials = credentials
    this.#found = found
    this.#processes = processes
    this.identity = identityOf(credentials)
    this.account = accountOf(this.identity, this.grant)
  }

  get grant(): Grant {
    return this.#processes.grantTo(this.#credentials)
  }

  /** The client, once the process is pinned. */
  get client(): Client | undefined {
    return this.#pinned?.client
  }

  /** Pins the process, unless it is granted nothing: it can own nothing then. Throws where it cannot be. */
  async pin(): Promise<void> {
    if (this.#pinned !== undefined || this.grant.role === 'none') return
    if (this.#found instanceof VfiodError) throw this.#found
    this.#pinning ??= this.#pin(this.#found).finally(() => {
      this.#pinning = undefined
    })
    await this.#pinning
  }

  async #pin(found: Peer): Promise<void> {
    this.#pinned = await this.#processes.pin(found, this)
    if (this.#pinned.process.pidfd !== found.pidfd) void closeAll([found.pidfd])
    this.#found = UNKNOWN
  }

  /** When a pin that is under way has come to its end. */
  async settled(): Promise<void> {
    await this.#pinning?.catch(() => undefined)
  }

  async check(): Promise<void> {
    await this.pin()
    if (this.#pinned !== undefined) await this.#processes.check(this.#pinned.process)
  }

  current(): Client {
    if (this.#pinned !== undefined) {
      this.#processes.requireKnown(this.#pinned.process)
      return this.#pinned.client
    }
    if (this.#found instanceof VfiodError) throw this.#found
    if (this.grant.role === 'none') return this.#processes.unpinned(this.#found)
    // The policy grants it something since the check.
    throw new VfiodError(
      'PEER_NOT_CHECKED',
      'Cannot check the calling process: the policy has changed during the call; repeat the call',
    )
  }

  requireAlive(): void {
    if (this.#pinned === undefined && this.#found instanceof VfiodError) throw this.#found
    const isGone =
      this.#pinned === undefined
        ? hasExited((this.#found as Peer).pidfd)
        : !this.#processes.isAlive(this.#pinned.process)
    if (isGone) throw unknownPeer('the process that connected has exited')
  }

  disconnected(): void {
    if (this.#pinning === undefined) this.#leave()
    else void this.settled().then(() => this.#leave())
  }

  #leave(): void {
    if (this.#pinned !== undefined) this.#processes.disconnected(this.#pinned.process)
    else if (!(this.#found instanceof VfiodError)) void closeAll([this.#found.pidfd])
    this.#found = UNKNOWN
  }
}

export const identityOf = ({ uid }: { readonly uid: number }): string => `uid ${uid}`

export const unknownPeer = (found: string): VfiodError =>
  new VfiodError(
    'UNKNOWN_PEER',
    `Cannot identify the caller: ${found}; connect from a process of this host that is still running`,
  )

const UNKNOWN = unknownPeer('the connection is closed')
