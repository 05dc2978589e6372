/**
 * The daemon's end of the connection to a helper. It connects when there is something to ask, and again
 * after the helper has gone. A request that has no answer, because the helper is gone, late, or of another
 * version, is refused with HELPER_UNAVAILABLE: that says nothing about what it was about.
 */

import { ERRNO, errnoName } from '../base/errno.ts'
import { type Reason, VfiodError } from '../base/error.ts'
import { Deadline } from '../os/deadline.ts'
import { connectSeqpacket, type Packet, type SeqpacketConnection } from '../os/fd-passing.ts'
import { credentialsOf } from '../os/peer.ts'
import { closeAll } from '../os/unix-socket.ts'
import { type Hello, type HelperAnswer, OUTSTANDING_MAX, parsed, unpacked } from './packets.ts'
import type { LookRequest, Serves, WriteRequest } from './requests.ts'

/** Requests that wait for their turn: more than the clients of a daemon may have under way. */
const WAITING_MAX = 4096

/** Milliseconds for a helper to start and say what it is. */
const HELLO_MS = 20_000

interface Asked {
  readonly request: LookRequest | WriteRequest
  /** Asked for when the request is sent; undefined where it is no longer wanted. */
  readonly fds: () => readonly number[] | undefined
  /** Undefined once it is settled or late. */
  settle: ((how: HelperAnswer | VfiodError) => void) | undefined
}

interface Connection {
  readonly socket: SeqpacketConnection
  readonly helloDeadline: Deadline
  hello: Hello | undefined
}

export interface HelperLinkOptions {
  readonly path: string
  readonly serves: Serves
  readonly version: string
  readonly log: (fields: Readonly<Record<string, unknown>>, message: string) => void
}

export class HelperLink {
  readonly #options: HelperLinkOptions
  #connection: Connection | undefined
  #waiting: Asked[] = []
  readonly #sent = new Map<number, Asked>()
  #lastId = 0
  #hasPtrace = true

  constructor(options: HelperLinkOptions) {
    this.#options = options
  }

  /** Whether the helper has CAP_SYS_PTRACE, as far as it has said. */
  get hasPtrace(): boolean {
    return this.#hasPtrace
  }

  /** Connects ahead of the first request; where that fails, the first request tries again. */
  start(): void {
    this.#connect()
  }

  /** The answer to a request, whose fds are then the caller's. Without `ms` it may take any time. */
  ask(
    request: LookRequest | WriteRequest,
    options: { readonly ms?: number; readonly fds?: () => readonly number[] | undefined } = {},
  ): Promise<HelperAnswer> {
    const { ms, fds = () => [] } = options
    if (this.#waiting.length >= WAITING_MAX)
      return Promise.reject(this.#gone(`it has ${this.#waiting.length} requests before this one`))
    return new Promise((resolve, reject) => {
      const late = () =>
        asked.settle?.(this.#gone(`it has not answered within ${Number(ms) / 1000} s`))
      const deadline = ms === undefined ? undefined : new Deadline(ms, late)
      const asked: Asked = {
        request,
        fds,
        settle: (how) => {
          asked.settle = undefined
          deadline?.cancel()
          if (how instanceof VfiodError) reject(how)
          else resolve(how)
        },
      }
      this.#waiting.push(asked)
      this.#sendWaiting()
    })
  }

  close(): void {
    this.#lost('the daemon has closed the connection')
  }

  #sendWaiting(): void {
    const connection = this.#connection ?? this.#connect()
    if (connection?.hello === undefined) return
    while (this.#waiting.length > 0 && this.#sent.size < OUTSTANDING_MAX) {
      const asked = this.#waiting.shift() as Asked
      const fds = asked.settle && asked.fds()
      if (fds === undefined) {
        asked.settle?.(this.#gone('the request is no longer wanted'))
        continue
      }
      const id = this.#lastId + 1
      const bytes = Buffer.from(JSON.stringify({ id, ...asked.request }))
      const answer = connection.socket.send(bytes, fds)
      // The helper has not taken all of those before it: there is room when it answers one.
      if (answer === -ERRNO.EAGAIN && this.#sent.size > 0) {
        this.#waiting.unshift(asked)
        return
      }
      this.#lastId = id
      this.#sent.set(id, asked)
      if (answer < 0) {
        this.#lost(`sending answered ${errnoName(-answer)}`)
        return
      }
    }
  }

  #connect(): Connection | undefined {
    const { path } = this.#options
    const socket = connectSeqpacket(path)
    if (typeof socket === 'number') {
      this.#lost(`connecting to ${path} answered ${errnoName(-socket)}`)
      return undefined
    }
    const server = credentialsOf(socket.fd)
    const own = process.geteuid?.() ?? 0
    if (typeof server === 'number' || (server.uid !== 0 && server.uid !== own)) {
      socket.close()
      this.#lost(`${path} belongs to another user`)
      return undefined
    }
    const helloDeadline = new Deadline(HELLO_MS, () =>
      this.#lost(`it has not started within ${HELLO_MS / 1000} s`),
    )
    const connection: Connection = { socket, helloDeadline, hello: undefined }
    this.#connection = connection
    void this.#read(connection)
    return connection
  }

  async #read(connection: Connection): Promise<void> {
    for (;;) {
      const packet = await connection.socket.receive()
      const isEnd = typeof packet === 'number' || packet.bytes.length === 0
      if (this.#connection !== connection) {
        if (typeof packet !== 'number') void closeAll(packet.fds)
        if (isEnd) return
        continue
      }
      const why =
        typeof packet === 'number' || isEnd ? endOf(packet) : this.#take(connection, packet)
      if (why === undefined) continue
      this.#lost(why)
      return
    }
  }

  /** A packet of the helper; answers what is wrong with it. */
  #take(connection: Connection, { bytes, fds }: Packet): string | undefined {
    if (connection.hello === undefined) return this.#greet(connection, bytes)
    const found = unpacked(bytes, fds)
    const asked = found && this.#sent.get(found.id)
    if (found === undefined || asked === undefined) {
      void closeAll(fds)
      return 'it has sent something that is not an answer'
    }
    this.#sent.delete(found.id)
    if (asked.settle === undefined) void closeAll(found.answer.fds)
    asked.settle?.(found.answer)
    this.#sendWaiting()
    return undefined
  }

  #greet(connection: Connection, bytes: Uint8Array): string | undefined {
    const { serves, version } = this.#options
    const hello = parsed(bytes) as Hello | undefined
    if (hello?.serves !== serves) return `it does not serve ${serves}`
    if (hello.version !== version)
      return `it is vfiod ${hello.version} and the daemon is ${version}; restart both`
    connection.helloDeadline.cancel()
    connection.hello = hello
    this.#hasPtrace = hello.hasPtrace
    this.#sendWaiting()
    return undefined
  }

  /** The connection is no more: the requests that were sent may have been served or not. */
  #lost(why: string): void {
    const connection = this.#connection
    this.#connection = undefined
    connection?.helloDeadline.cancel()
    connection?.socket.close()
    const failed = [...this.#sent.values()]
    this.#sent.clear()
    // A helper that did not come so far is not started again and again for those that wait.
    if (connection?.hello === undefined) failed.push(...this.#waiting.splice(0))
    if (failed.length > 0)
      this.#options.log({ helper: this.#options.path, why }, 'a helper does not answer')
    for (const asked of failed) asked.settle?.(this.#gone(why))
    if (this.#waiting.length > 0) this.#sendWaiting()
  }

  #gone(why: string): VfiodError {
    const { serves, path } = this.#options
    return new VfiodError(
      'HELPER_UNAVAILABLE',
      `Cannot ask the helper for ${serves} (${path}): ${why}; repeat the call, nothing was released`,
      { retryAfterMs: RETRY_MS },
    )
  }
}

const RETRY_MS = 1000

const endOf = (packet: Packet | number): string =>
  typeof packet === 'number'
    ? `reading answered ${errnoName(-packet)}`
    : 'it has ended, or refused the connection'

/** The value of an answer, or the errno; throws what the helper refused with. */
export const answered = ({ outcome }: HelperAnswer): { readonly value: unknown } | number => {
  if ('errno' in outcome) return outcome.errno
  if ('value' in outcome) return outcome
  const { reason, message } = outcome.refused
  throw new VfiodError(reason as Reason, message)
}
