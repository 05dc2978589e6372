/**
 * Where clients on other hosts connect: TLS 1.3 with certificates on both sides, or nothing. Until a
 * connection has shown a certificate with a name it counts against no quota, so there are only so
 * many of them, in all and from one address; the one that has waited longest makes room for the next.
 */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import {
  createServer as createTlsServer,
  DEFAULT_CIPHERS,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls'
import type { Log } from '../identity/log.ts'

/** PEM, all of them. */
export interface Certificates {
  /** Who signs the certificates of clients. */
  readonly ca: string
  readonly cert: string
  readonly key: string
  /** Certificates of clients that are revoked: one list of each authority. */
  readonly crl?: string
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

/** TLS 1.3, and no key or signature below 112 bits of strength: RSA of 2,048 bits, SHA-2. */
const STRENGTH = { minVersion: 'TLSv1.3', ciphers: `${DEFAULT_CIPHERS}:@SECLEVEL=2` } as const

/** What a timer can wait: 24 days. */
const TIMER_MS = 2 ** 31 - 1

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
  #certificates: Certificates
  readonly #log: Log
  readonly #tls: TlsServer
  readonly #listening: Server
  /** Connections without a name by address and port, the oldest first. */
  readonly #unnamed = new Map<string, { readonly socket: Socket; readonly address: string }>()

  /** Connections with a name. */
  readonly #named = new Set<TLSSocket>()

  /** Hands on connections whose client showed a certificate with a name. */
  constructor(options: RemoteOptions, accept: (socket: TLSSocket, name: string) => void, log: Log) {
    this.#options = options
    this.#certificates = options.certificates
    this.#log = log
    this.#tls = createTlsServer(
      {
        ...options.certificates,
        ...STRENGTH,
        requestCert: true,
        rejectUnauthorized: true,
        ALPNProtocols: ['h2'],
        handshakeTimeout: HANDSHAKE_MS,
      },
      (socket) => {
        this.#unnamed.delete(keyOf(socket))
        const certificate = socket.getPeerCertificate()
        const name = nameIn(certificate.subjectaltname)
        if (name === undefined || socket.alpnProtocol !== 'h2') {
          log.warn({ address: socket.remoteAddress }, 'remote connection refused: no name')
          socket.destroy()
          return
        }
        // A host that is cut off says nothing; the kernel asks, and closes.
        socket.setKeepAlive(true, KEEPALIVE_MS)
        this.#keep(socket, name, Date.parse(certificate.valid_to))
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
   * New certificates, the old strength: Node forgets it with the old context. Where another authority
   * or other revocations judge clients from now on, every client connects again to be judged.
   */
  setCertificates(certificates: Certificates): void {
    const { ca, crl } = this.#certificates
    this.#tls.setSecureContext({ ...certificates, ...STRENGTH })
    this.#certificates = certificates
    if (ca === certificates.ca && crl === certificates.crl) return
    for (const socket of this.#named) this.#end(socket, 'certificates are judged anew')
  }

  /** A connection ends with the certificate that it was made with. */
  #keep(socket: TLSSocket, name: string, validTo: number): void {
    this.#named.add(socket)
    let expiry: NodeJS.Timeout | undefined
    const wait = (): void => {
      const left = validTo - Date.now()
      if (left <= 0) this.#end(socket, `the certificate of ${name} has expired`)
      else expiry = setTimeout(wait, Math.min(left, TIMER_MS)).unref()
    }
    socket.once('close', () => {
      clearTimeout(expiry)
      this.#named.delete(socket)
    })
    wait()
  }

  #end(socket: TLSSocket, refusal: string): void {
    this.#log.warn({ address: socket.remoteAddress, refusal }, 'remote connection ended')
    socket.destroy()
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
