/** What frames and packets carry in JSON: few, small, and each checked where the owner reads it. */

/** A connection that a front is given, with its socket, as a packet beside the frames. */
export interface GivenConnection {
  readonly connection: number
  /** Its calls count together with those of other connections of the same account. */
  readonly account: string
  /** Every call is answered with this, and then the connection is closed: a `status` payload in base64. */
  readonly refusal?: string
  /**
   * What is spoken on it: gRPC, gRPC behind a TLS handshake, packets of the fd channel; nothing where the
   * fds are only to be kept until the process ends.
   */
  readonly speaks: 'grpc' | 'tls' | 'packets' | 'nothing'
}

/** The answer to a packet of the fd channel, with the fds that go with it. */
export interface Answered {
  readonly answerTo: { readonly connection: number; readonly packet: number }
  readonly reply: Readonly<Record<string, unknown>>
}

/** A call that did not get further than a front, for the log. */
export interface RefusedCall {
  readonly method: string
  readonly reason: string
  readonly refusal: string
}

/** What remote clients are served with: PEM, all of them. */
export interface Certificates {
  /** Who signs the certificates of clients. */
  readonly ca: string
  readonly cert: string
  readonly key: string
  /** Certificates of clients that are revoked: one list of each authority. */
  readonly crl?: string
}
