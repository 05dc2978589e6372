/**
 * Connections that are passed to a front. A front that starts takes none yet, and its socket has room for a
 * few hundred: those that come after them wait here, and their order is kept.
 */
import { ERRNO } from '../../base/errno.ts'
import type { GivenConnection } from '../../link/records.ts'
import type { SeqpacketConnection } from '../../os/fd-passing.ts'

/** How often what waits is tried again. */
const AGAIN_MS = 20

interface Waiting {
  readonly connection: number
  readonly packet: Buffer
  readonly fd: number
}

export class GivenQueue {
  readonly #packets: SeqpacketConnection
  readonly #onRefused: () => void
  #waiting: Waiting[] = []
  #timer: NodeJS.Timeout | undefined

  /** `onRefused` is called where the front takes no connections any more. */
  constructor(packets: SeqpacketConnection, onRefused: () => void) {
    this.#packets = packets
    this.#onRefused = onRefused
  }

  /** Connections that wait. */
  get size(): number {
    return this.#waiting.length
  }

  /** The fd stays the caller's, and open until the connection is forgotten. */
  give(given: GivenConnection, fd: number): void {
    const { connection } = given
    this.#waiting.push({ connection, packet: Buffer.from(JSON.stringify(given)), fd })
    if (this.size === 1) this.#pass()
  }

  /** The fd of the connection is about to be closed. */
  forget(connection: number): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting.connection !== connection)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#waiting = []
  }

  #pass(): void {
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined) return
      const sent = this.#packets.send(first.packet, [first.fd])
      if (sent === -ERRNO.EAGAIN) {
        clearTimeout(this.#timer)
        this.#timer = setTimeout(() => this.#pass(), AGAIN_MS)
        return
      }
      if (sent < 0) {
        this.#onRefused()
        return
      }
      this.#waiting.shift()
    }
  }
}
