/**
 * The socket that fds travel on: SOCK_SEQPACKET, one message per packet, fds by SCM_RIGHTS.
 * Every received fd ends with the caller or is closed: a packet that lost a part (more than 64 KiB,
 * more than 253 fds, no fd numbers left) is closed whole and answers -EMSGSIZE.
 */

import { rmSync } from 'node:fs'
import { ERRNO } from '../base/errno.ts'
import { sys } from './libc.ts'
import { unwatch, watch } from './poller.ts'
import {
  acceptUnix,
  closeAll,
  connectUnix,
  endWriting,
  listenUnix,
  receiveMessage,
  SOCK_SEQPACKET,
  sendMessage,
} from './unix-socket.ts'

export interface Packet {
  /** Empty when the peer has closed. */
  readonly bytes: Uint8Array
  /** Close-on-exec; the receiver's to close. */
  readonly fds: number[]
}

type Receiver = (packet: Packet | number | Promise<number>) => void

export class SeqpacketConnection {
  readonly fd: number
  /** Closes the fds of a packet that lost a part. */
  closeFds: (fds: readonly number[]) => void | Promise<void> = closeAll
  readonly #receivers: Receiver[] = []
  #isClosed = false

  constructor(fd: number) {
    this.fd = fd
  }

  /** The next packet; -EMSGSIZE for one that lost a part; -EBADF once this side is closed. Calls
   * that wait at the same time are answered in their order. */
  receive(): Promise<Packet | number> {
    if (this.#isClosed) return Promise.resolve(-ERRNO.EBADF)
    return new Promise((resolve) => {
      this.#receivers.push(resolve)
      if (this.#receivers.length === 1) this.#deliver()
    })
  }

  #deliver(): void {
    let received = this.#receivers.length > 0 ? receiveMessage(this.fd) : -ERRNO.EAGAIN
    while (received !== -ERRNO.EAGAIN) {
      const receiver = this.#receivers.shift()
      if (typeof received === 'number') receiver?.(received)
      else if (received.isTruncated) receiver?.(this.#closed(received.fds))
      else receiver?.({ bytes: received.bytes, fds: received.fds })
      received = this.#receivers.length > 0 ? receiveMessage(this.fd) : -ERRNO.EAGAIN
    }
    if (this.#receivers.length === 0) unwatch(this.fd)
    else this.#watch()
  }

  async #closed(fds: readonly number[]): Promise<number> {
    await this.closeFds(fds)
    return -ERRNO.EMSGSIZE
  }

  #watch(): void {
    const answer = watch(this.fd, () => this.#deliver())
    if (answer < 0 && answer !== -ERRNO.EEXIST)
      for (const receiver of this.#receivers.splice(0)) receiver(answer)
  }

  /** Sends one packet without waiting: -EAGAIN when the peer does not take packets, -EPIPE when it
   * has closed. The fds stay open on this side. An empty packet means "closed", so it is refused. */
  send(bytes: Uint8Array, fds: readonly number[] = []): number {
    if (this.#isClosed) return -ERRNO.EBADF
    return bytes.length === 0 ? -ERRNO.EINVAL : sendMessage(this.fd, bytes, fds)
  }

  /** The peer reads the end of this side; what it sends still arrives. 0 or -errno. */
  endWriting(): number {
    return this.#isClosed ? -ERRNO.EBADF : endWriting(this.fd)
  }

  close(): void {
    if (!this.#isClosed) sys.closeSync(this.detach())
  }

  /** Closes this object and not its fd, which is the caller's from here on. */
  detach(): number {
    if (!this.#isClosed) unwatch(this.fd)
    this.#isClosed = true
    for (const receiver of this.#receivers.splice(0)) receiver(-ERRNO.EBADF)
    return this.fd
  }
}

/** How long accepting rests when there are no fd numbers left; the socket would stay readable. */
const ACCEPT_REST_MS = 100

export class SeqpacketListener {
  readonly fd: number
  readonly #path: string | undefined
  #deliver: (connection: SeqpacketConnection) => void = (connection) => connection.close()
  #resting: NodeJS.Timeout | undefined
  #isClosed = false

  /** `path` is the socket file to remove on close; none for an inherited socket. */
  constructor(fd: number, path?: string) {
    this.fd = fd
    this.#path = path
  }

  /** Starts accepting; each connection is the callback's to close. Answers -errno or 0. */
  onConnection(deliver: (connection: SeqpacketConnection) => void): number {
    this.#deliver = deliver
    const answer = watch(this.fd, () => this.#accept())
    return answer === -ERRNO.EEXIST ? 0 : answer
  }

  #accept(): void {
    const fd = acceptUnix(this.fd)
    if (fd >= 0) this.#deliver(new SeqpacketConnection(fd))
    else if (fd === -ERRNO.EMFILE || fd === -ERRNO.ENFILE) this.#rest()
  }

  #rest(): void {
    unwatch(this.fd)
    this.#resting = setTimeout(() => watch(this.fd, () => this.#accept()), ACCEPT_REST_MS)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#resting)
    unwatch(this.fd)
    sys.closeSync(this.fd)
    if (this.#path && !this.#path.startsWith('@')) rmSync(this.#path, { force: true })
  }
}

/** Listens on a path ('@name' for an abstract one); -EADDRINUSE while the file exists, stale or not. */
export const listenSeqpacket = (path: string): SeqpacketListener | number => {
  const fd = listenUnix(SOCK_SEQPACKET, path)
  return fd < 0 ? fd : new SeqpacketListener(fd, path)
}

export const connectSeqpacket = (path: string): SeqpacketConnection | number => {
  const fd = connectUnix(SOCK_SEQPACKET, path)
  return fd < 0 ? fd : new SeqpacketConnection(fd)
}
