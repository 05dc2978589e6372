/**
 * TLS 1.3 with certificates on both sides, or nothing. The name in the certificate of a client is who it
 * is; a connection ends with the certificate that it was made with, and with the authority that judged it.
 */
import type { Socket } from 'node:net'
import {
  createServer as createTlsServer,
  DEFAULT_CIPHERS,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls'
import type { Certificates } from '../link/records.ts'

/** How long a client may take over the handshake. */
const HANDSHAKE_MS = 10_000

/** How long a connection may be silent before the kernel asks whether its other end is there. */
const KEEPALIVE_MS = 60_000

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

interface Shaking {
  readonly id: number
  readonly serve: (socket: TLSSocket) => void
}

export class TlsHandshakes {
  readonly #named: (connection: number, name: string) => void
  readonly #refused: (connection: number, why: string) => void
  /** What a handshake is for, by the socket below it. */
  readonly #shaking = new WeakMap<object, Shaking>()
  readonly #open = new Set<TLSSocket>()
  readonly #waiting: Socket[] = []
  #certificates: Certificates | undefined
  #server: TlsServer | undefined

  constructor(parts: {
    readonly named: (connection: number, name: string) => void
    readonly refused: (connection: number, why: string) => void
  }) {
    this.#named = parts.named
    this.#refused = parts.refused
  }

  shakeHands(id: number, socket: Socket, serve: (socket: TLSSocket) => void): void {
    this.#shaking.set(socket, { id, serve })
    // Connections come by another way than certificates, and may be the first to come.
    if (this.#server === undefined) this.#waiting.push(socket)
    else this.#server.emit('connection', socket)
  }

  /**
   * New certificates, the old strength: Node forgets it with the old context. Where another authority
   * or other revocations judge clients from now on, every client connects again to be judged.
   */
  setCertificates(certificates: Certificates): void {
    const former = this.#certificates
    this.#certificates = certificates
    if (this.#server === undefined || former === undefined) {
      this.#server = this.#create(certificates)
      for (const socket of this.#waiting.splice(0)) this.#server.emit('connection', socket)
      return
    }
    this.#server.setSecureContext({ ...certificates, ...STRENGTH })
    if (former.ca === certificates.ca && former.crl === certificates.crl) return
    for (const socket of this.#open) this.#end(socket, 'certificates are judged anew')
  }

  close(): void {
    for (const socket of this.#open) socket.destroy()
  }

  #end(socket: TLSSocket, why: string): void {
    const id = this.#of(socket)?.id
    if (id !== undefined) this.#refused(id, why)
    socket.destroy()
  }

  #create(certificates: Certificates): TlsServer {
    const server = createTlsServer(
      {
        ...certificates,
        ...STRENGTH,
        requestCert: true,
        rejectUnauthorized: true,
        ALPNProtocols: ['h2'],
        handshakeTimeout: HANDSHAKE_MS,
      },
      (socket) => this.#shaken(socket),
    )
    server.on('tlsClientError', (error, socket) => {
      const id = this.#of(socket)?.id
      if (id !== undefined) this.#refused(id, error.message)
    })
    return server
  }

  #of(socket: TLSSocket): Shaking | undefined {
    const below = (socket as unknown as { readonly _parent?: object })._parent
    return below === undefined ? undefined : this.#shaking.get(below)
  }

  #shaken(socket: TLSSocket): void {
    const shaking = this.#of(socket)
    const certificate = socket.getPeerCertificate()
    const name = nameIn(certificate.subjectaltname)
    if (shaking === undefined || name === undefined || socket.alpnProtocol !== 'h2') {
      if (shaking !== undefined) this.#refused(shaking.id, 'no name')
      socket.destroy()
      return
    }
    // A host that is cut off says nothing; the kernel asks, and closes.
    socket.setKeepAlive(true, KEEPALIVE_MS)
    this.#keep(socket, Date.parse(certificate.valid_to))
    this.#named(shaking.id, name)
    shaking.serve(socket)
  }

  /** A connection ends with the certificate that it was made with. */
  #keep(socket: TLSSocket, validTo: number): void {
    this.#open.add(socket)
    let expiry: NodeJS.Timeout | undefined
    const wait = (): void => {
      const left = validTo - Date.now()
      if (left <= 0) this.#end(socket, 'its certificate has expired')
      else expiry = setTimeout(wait, Math.min(left, TIMER_MS)).unref()
    }
    socket.once('close', () => {
      clearTimeout(expiry)
      this.#open.delete(socket)
    })
    wait()
  }
}
