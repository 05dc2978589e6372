/**
 * Where clients on other hosts connect: TLS 1.3 with certificates on both sides, or nothing. Until a
 * connection has shown a certificate with a name it counts against no quota, so there are only so
 * many of them, in all and from one address; the one that has waited longest makes room for the next.
 */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls'
import type { Log } from '../identity/log.ts'

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

/** Connections without a name, from one address and in all. */
const UNNAMED_PER_ADDRESS = 32
const UNNAMED_MAX = 128

const WEAKEST = 'TLSv1.3'

/** The first URI of the certificate's subject alternative names, or else its first DNS name. */
export function nameIn(subjectAltName: string | undefined): string | undefined {
  const names = (subjectAltName ?? '').split(', ')
  for (const kind of ['URI:', 'DNS:']) {
    const found = names.find((name) => name.startsWith(kind))
    // Node quotes a name that holds what separates names; no client has such a name.
    if (found !== undefined && !found.includes('"')) return found.slice(kind.length)
  }
  return undefined
}

export class RemoteListener {
  readonly #options: RemoteOptions
  readonly #log: Log
  readonly #tls: TlsServer
  readonly #listening: Server
  /** Connections without a name by address and port, the oldest first. */
  readonly #unnamed = new Map<string, { readonly socket: Socket; readonly address: string }>()

  /** Hands on connections whose client showed a certificate with a name. */
  constructor(options: RemoteOptions, accept: (socket: TLSSocket, name: string) => void, log: Log) {
    this.#options = options
    this.#log = log
    this.#tls = createTlsServer(
      {
        ...options.certificates,
        minVersion: WEAKEST,
        requestCert: true,
        rejectUnauthorized: true,
        ALPNProtocols: ['h2'],
        handshakeTimeout: HANDSHAKE_MS,
      },
      (socket) => {
        this.#unnamed.delete(keyOf(socket))
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
    this.#tls.on('tlsClientError', (error, { remoteAddress: address }) => {
      log.warn({ address, refusal: error.message }, 'remote connection refused')
    })
    this.#listening = createServer((socket) => this.#shakeHands(socket))
  }

  async listen(): Promise<void> {
    this.#listening.listen(this.#options.port, this.#options.host)
    await once(this.#listening, 'listening')
  }

  /** The kernel chose one where 0 was configured. */
  get port(): number | undefined {
    const address = this.#listening.address()
    return address === null || typeof address === 'string' ? undefined : address.port
  }

  /** New certificates, the old strength: Node forgets the version with the old context. */
  setCertificates(certificates: Certificates): void {
    this.#tls.setSecureContext({ ...certificates, minVersion: WEAKEST })
  }

  /** Takes no new connections, and closes those without a name. */
  close(): void {
    this.#listening.close()
    for (const { socket } of this.#unnamed.values()) socket.destroy()
  }

  #shakeHands(socket: Socket): void {
    const { remoteAddress: address = '' } = socket
    const key = keyOf(socket)
    this.#makeRoom(address)
    this.#unnamed.set(key, { socket, address })
    socket.once('close', () => this.#unnamed.delete(key))
    this.#tls.emit('connection', socket)
  }

  #makeRoom(address: string): void {
    const unnamed = [...this.#unnamed]
    const ofAddress = unnamed.filter(([, each]) => each.address === address)
    const crowd = ofAddress.length >= UNNAMED_PER_ADDRESS ? ofAddress : unnamed
    if (crowd.length < (crowd === ofAddress ? UNNAMED_PER_ADDRESS : UNNAMED_MAX)) return
    const [key, oldest] = crowd[0] as (typeof crowd)[number]
    this.#unnamed.delete(key)
    const refusal = 'no name yet, and others wait'
    this.#log.warn({ address: oldest.address, refusal }, 'remote connection refused')
    oldest.socket.destroy()
  }
}

const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`
