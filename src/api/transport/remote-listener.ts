/**
 * Where clients on other hosts connect. The front for remote clients shakes hands with them. Until a
 * connection has shown a certificate with a name it counts against no quota, so there are only so
 * many of them, in all and from one host; the one that has waited longest makes room for the next. Those
 * that come too fast are closed before they cost a handshake.
 */
import { once } from 'node:events'
import type { Server } from 'node:net'
import type { Certificates } from '../../link/records.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import { type Admission, hostOf } from './admission.ts'
import { accepting, type Connections } from './connections.ts'

export interface RemoteOptions {
  readonly host: string
  readonly port: number
  readonly certificates: Certificates
  readonly leaseMs: number
}

/** Connections without a name, from one host and in all. */
const UNNAMED_PER_HOST = 32
const UNNAMED_MAX = 128

interface Unnamed {
  readonly host: string
  close(): void
}

export class RemoteListener {
  readonly #options: RemoteOptions
  readonly #connections: Connections
  readonly #admission: Admission
  readonly #peerAt: (name: string) => ConnectionPeer
  readonly #log: Log
  readonly #listening: Server
  /** Connections without a name, the oldest first. */
  readonly #unnamed = new Set<Unnamed>()

  /** `peerAt` answers who calls by a certificate of this name. */
  constructor(
    options: RemoteOptions,
    parts: {
      readonly connections: Connections
      readonly admission: Admission
      readonly peerAt: (name: string) => ConnectionPeer
      readonly log: Log
    },
  ) {
    this.#options = options
    this.#connections = parts.connections
    this.#admission = parts.admission
    this.#peerAt = parts.peerAt
    this.#log = parts.log
    this.#listening = accepting((fd, { remoteAddress = '' }) => this.#accept(fd, remoteAddress))
    this.setCertificates(options.certificates)
  }

  async listen(): Promise<void> {
    this.#listening.listen(this.#options.port, this.#options.host)
    await once(this.#listening, 'listening')
    this.#listening.on('error', (error) =>
      this.#log.error({ refusal: error.message }, 'cannot accept a remote connection'),
    )
  }

  /** The kernel chose one where 0 was configured. */
  get port(): number | undefined {
    const address = this.#listening.address()
    return address === null || typeof address === 'string' ? undefined : address.port
  }

  /**
   * New certificates. Where another authority or other revocations judge clients from now on, every
   * client connects again to be judged.
   */
  setCertificates(certificates: Certificates): void {
    this.#connections.fronts.setCertificates(Buffer.from(JSON.stringify(certificates)))
  }

  /** Takes no new connections, and closes those without a name. */
  close(): void {
    this.#listening.close()
    for (const { close } of this.#unnamed) close()
  }

  #accept(fd: number, address: string): void {
    const host = hostOf(address)
    if (!this.#admission.hears(host)) {
      this.#connections.disposal.stream(fd)
      return
    }
    this.#makeRoom(host)
    const unnamed: { host: string; close: () => void } = { host, close: () => {} }
    this.#unnamed.add(unnamed)
    const forget = () => void this.#unnamed.delete(unnamed)
    const how = { peerAt: this.#peerAt, named: forget, closed: forget }
    unnamed.close = this.#connections.serveRemote(fd, address, how).close
  }

  #makeRoom(host: string): void {
    const unnamed = [...this.#unnamed]
    const ofHost = unnamed.filter((each) => each.host === host)
    const crowd = ofHost.length >= UNNAMED_PER_HOST ? ofHost : unnamed
    if (crowd.length < (crowd === ofHost ? UNNAMED_PER_HOST : UNNAMED_MAX)) return
    const [oldest] = crowd as [Unnamed]
    this.#unnamed.delete(oldest)
    const refusal = 'no name yet, and others wait'
    this.#log.warn({ address: oldest.host, refusal }, 'remote connection refused')
    oldest.close()
  }
}
