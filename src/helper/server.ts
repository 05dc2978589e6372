/**
 * The helper's end: takes connections of processes of one user, and serves requests of one kind. A
 * connection that breaks a rule is closed.
 */

import { errnoName } from '../base/errno.ts'
import { VfiodError } from '../base/error.ts'
import type { SeqpacketConnection, SeqpacketListener } from '../os/fd-passing.ts'
import { hasCapability } from '../os/limits.ts'
import { credentialsOf } from '../os/peer.ts'
import { closeAll } from '../os/unix-socket.ts'
import { type Hello, OUTSTANDING_MAX, type Outcome, packed, parsed } from './packets.ts'
import type { Serves } from './requests.ts'

/** The daemon has one; another is there while it is replaced. */
const CONNECTIONS_MAX = 8

/** What a request comes to. The fds are sent with it, and closed afterwards. */
export type HelperServed = Outcome & { readonly fds?: readonly number[] }

/** Serves what is a request of its kind; undefined for anything else. The fds stay the caller's. */
export type Serve = (request: unknown, fds: readonly number[]) => Promise<HelperServed> | undefined

export interface HelperServerOptions {
  readonly listener: SeqpacketListener
  readonly serves: Serves
  readonly serve: Serve
  readonly version: string
  /** Users besides its own whose processes may ask. */
  readonly uids: readonly number[]
  readonly log: (line: string) => void
}

export class HelperServer {
  readonly #options: HelperServerOptions
  readonly #connections = new Set<SeqpacketConnection>()

  constructor(options: HelperServerOptions) {
    this.#options = options
    const answer = options.listener.onConnection((connection) => this.#accept(connection))
    if (answer < 0) throw new Error(`Cannot accept connections: ${errnoName(-answer)}`)
  }

  close(): void {
    this.#options.listener.close()
    for (const connection of this.#connections) this.#end(connection)
  }

  #accept(connection: SeqpacketConnection): void {
    const { uids, serves, version, log } = this.#options
    const peer = credentialsOf(connection.fd)
    const own = process.geteuid?.() ?? 0
    const uid = typeof peer === 'number' ? undefined : peer.uid
    const isRoom = this.#connections.size < CONNECTIONS_MAX
    if (uid === undefined || (uid !== own && !uids.includes(uid)) || !isRoom) {
      log(`refused a connection of uid ${uid ?? 'unknown'}${isRoom ? '' : ': there are too many'}`)
      connection.close()
      return
    }
    this.#connections.add(connection)
    const hello: Hello = { serves, version, hasPtrace: hasCapability('CAP_SYS_PTRACE') }
    if (connection.send(Buffer.from(JSON.stringify(hello))) < 0) this.#end(connection)
    else void this.#read(connection)
  }

  async #read(connection: SeqpacketConnection): Promise<void> {
    let underWay = 0
    for (;;) {
      const packet = await connection.receive()
      if (typeof packet === 'number' || packet.bytes.length === 0) break
      const { id, ...request } = (parsed(packet.bytes) ?? {}) as Record<string, unknown>
      const isTooMany = underWay >= OUTSTANDING_MAX
      const served =
        typeof id === 'number' && Number.isSafeInteger(id) && !isTooMany
          ? this.#options.serve(request, packet.fds)
          : undefined
      if (served === undefined) {
        void closeAll(packet.fds)
        this.#options.log(`closed a connection: ${isTooMany ? 'too many requests' : 'no request'}`)
        break
      }
      underWay += 1
      const answered = served.catch(refusalOf).then((outcome) => {
        underWay -= 1
        this.#answer(connection, id as number, outcome)
      })
      void answered.finally(() => closeAll(packet.fds))
    }
    this.#end(connection)
  }

  #answer(
    connection: SeqpacketConnection,
    id: number,
    { fds = [], ...outcome }: HelperServed,
  ): void {
    const { bytes, memory } = packed(id, outcome as Outcome)
    const answer = connection.send(bytes, [...fds, ...memory])
    void closeAll([...fds, ...memory])
    if (answer < 0) this.#end(connection)
  }

  #end(connection: SeqpacketConnection): void {
    this.#connections.delete(connection)
    connection.close()
  }
}

const refusalOf = (error: unknown): HelperServed => ({
  refused:
    error instanceof VfiodError
      ? { reason: error.reason, message: error.message }
      : { reason: 'BUG', message: `Cannot look at the host: ${error}` },
})
