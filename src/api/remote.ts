/**
 * Clients on other hosts: TLS 1.3 with certificates on both sides, or nothing. The name in the
 * client's certificate is who it is; everybody with that name is one client. There is no process to
 * watch, so ownership is a lease: when it runs out everything is released.
 *
 * Whatever is heard of the client renews it: each call, each message that it uploads, each one that
 * it takes of a download. It does not run out while the daemon itself is at work, on a call or on a
 * message of an upload; a client that is waited for has until its deadline.
 */
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls'
import type { Client } from '../domain/identity/clients.ts'
import type { Grant } from '../rules/policy.ts'
import type { ConnectionPeer, GrantOf, Release } from './connection-peer.ts'
import type { Log } from './log.ts'

/** PEM, all three. */
export interface Certificates {
  /** Who signs the certificates of clients. */
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export interface RemoteOptions {
  readonly host: string
  readonly port: number
  readonly certificates: Certificates
  readonly leaseMs: number
}

/** How long a client may take over the handshake. */
const HANDSHAKE_MS = 10_000

/** How long a connection may be silent before the kernel asks whether its other end is there. */
const KEEPALIVE_MS = 60_000

const WEAKEST = 'TLSv1.3'

/** The first URI of the certificate's subject alternative names, or else its first DNS name. */
export function nameIn(subjectAltName: string | undefined): string | undefined {
  const names = (subjectAltName ?? '').split(', ')
  for (const kind of ['URI:', 'DNS:']) {
    const found = names.find((name) => name.startsWith(kind))
    // Node quotes a name that holds what separates names; such a name is nobody's.
    if (found !== undefined && !found.includes('"')) return found.slice(kind.length)
  }
  return undefined
}

const identityOf = (name: string): string => `remote ${name}`

class RemoteClient implements Client {
  readonly id: string
  readonly pid = 0
  readonly uid = 0
  readonly gid = 0
  readonly command = ''
  readonly remote: string
  readonly identity: string
  readonly #grantOf: GrantOf
  readonly #leaseMs: number
  readonly #expired: () => void
  #timer: NodeJS.Timeout | undefined
  #deadline = 0
  /** Pieces of work that the daemon does for it; the lease runs while there are none. */
  #holds = 0
  #isEnded = false

  constructor(
    id: string,
    parts: {
      readonly remote: string
      readonly grantOf: GrantOf
      readonly leaseMs: number
      readonly expired: (client: Client) => void
    },
  ) {
    this.id = id
    this.remote = parts.remote
    this.identity = identityOf(parts.remote)
    this.#grantOf = parts.grantOf
    this.#leaseMs = parts.leaseMs
    this.#expired = () => parts.expired(this)
    this.renew()
  }

  get grant(): Grant {
    return this.#grantOf({ kind: 'remote', name: this.remote })
  }

  /** Milliseconds until everything it owns is released, unless it is heard of. */
  get leaseMs(): number {
    if (this.#holds > 0) return this.#leaseMs
    return Math.max(0, Math.ceil(this.#deadline - performance.now()))
  }

  /** Begins the whole time anew, unless it has run out or does not run. */
  renew(): void {
    if (this.#isEnded || this.#holds > 0) return
    clearTimeout(this.#timer)
    this.#deadline = performance.now() + this.#leaseMs
    this.#timer = setTimeout(() => {
      this.end()
      this.#expired()
    }, this.#leaseMs)
    this.#timer.unref()
  }

  /** The lease does not run until what this answers is called; then it begins anew. */
  hold(): () => void {
    this.#holds += 1
    clearTimeout(this.#timer)
    return () => {
      this.#holds -= 1
      this.renew()
    }
  }

  end(): void {
    this.#isEnded = true
    clearTimeout(this.#timer)
  }
}

export class RemotePeers {
  readonly #byName = new Map<string, RemoteClient>()
  readonly #grantOf: GrantOf
  readonly #leaseMs: number
  readonly #release: Release
  #seen = 0

  constructor(parts: {
    readonly grantOf: GrantOf
    readonly leaseMs: number
    readonly release: Release
  }) {
    this.#grantOf = parts.grantOf
    this.#leaseMs = parts.leaseMs
    this.#release = parts.release
  }

  clients(): Client[] {
    return [...this.#byName.values()]
  }

  /** The other end of a connection whose certificate has this name. */
  at(name: string): ConnectionPeer {
    const grantOf = this.#grantOf
    return {
      identity: identityOf(name),
      get grant() {
        return grantOf({ kind: 'remote', name })
      },
      current: () => this.current(name),
      disconnected: () => {},
    }
  }

  /** The client that calls by a certificate of this name; the call renews its lease. */
  current(name: string): Client {
    const known = this.#byName.get(name)
    if (known !== undefined) {
      known.renew()
      return known
    }
    this.#seen += 1
    const made = new RemoteClient(`remote-${this.#seen}`, {
      remote: name,
      grantOf: this.#grantOf,
      leaseMs: this.#leaseMs,
      expired: (client) => {
        this.#byName.delete(name)
        this.#release(client, 'its lease ran out')
      },
    })
    this.#byName.set(name, made)
    return made
  }

  close(): void {
    for (const client of this.#byName.values()) client.end()
    this.#byName.clear()
  }
}

/** What is left of a client's lease; 0 for a local one, which has none. */
export const leaseMsOf = (client: Client): number =>
  client instanceof RemoteClient ? client.leaseMs : 0

/** The client took a message, or sent one: its lease begins anew. Nothing to a local client. */
export const heardFrom = (client: Client): void => {
  if (client instanceof RemoteClient) client.renew()
}

/** The daemon is at work for the client until what this answers is called: its lease waits. */
export const holdLease = (client: Client): (() => void) =>
  client instanceof RemoteClient ? client.hold() : () => {}

/** New certificates, the old strength: Node forgets the version with the old context. */
export const replaceCertificates = (server: TlsServer, certificates: Certificates): void =>
  server.setSecureContext({ ...certificates, minVersion: WEAKEST })

/** A TLS server that hands on connections whose client showed a certificate with a name. */
export function createRemoteServer(
  { certificates }: RemoteOptions,
  accept: (socket: TLSSocket, name: string) => void,
  log: Log,
): TlsServer {
  const server = createTlsServer(
    {
      ...certificates,
      minVersion: WEAKEST,
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: ['h2'],
      handshakeTimeout: HANDSHAKE_MS,
    },
    (socket) => {
      const name = nameIn(socket.getPeerCertificate().subjectaltname)
      if (name === undefined || socket.alpnProtocol !== 'h2') {
        log.warn({ address: socket.remoteAddress }, 'remote connection refused: no name')
        socket.destroy()
        return
      }
      // A host that is cut off says nothing; the kernel asks, and closes.
      socket.setKeepAlive(true, KEEPALIVE_MS)
      accept(socket, name)
    },
  )
  server.on('tlsClientError', (error, socket) => {
    log.warn({ address: socket.remoteAddress, refusal: error.message }, 'remote connection refused')
  })
  return server
}
