/**
 * A process that makes the system calls that it is sent (second.c). Calls are made one at a time,
 * and answered before the next.
 */

import { POLLIN, sys } from '../../src/os/libc.ts'
import {
  acceptUnix,
  listenUnix,
  receiveMessage,
  SOCK_SEQPACKET,
  sendMessage,
} from '../../src/os/unix-socket.ts'

const BUFFER = -1
const RECEIVE = -2
const SEND = -3
const FORK = -4
const END = -5

const HEADER = 64
/** Far longer than any call takes; a process that is stuck ends the run. */
const PATIENCE_MS = 30_000

const isReadable = (fd: number, timeoutMs: number): boolean => {
  const pollfd = new DataView(new ArrayBuffer(8))
  pollfd.setInt32(0, fd, true)
  pollfd.setInt16(4, POLLIN, true)
  return sys.poll(new Uint8Array(pollfd.buffer), timeoutMs) > 0
}

/** Where such processes connect, and their name for it. */
export class Meeting {
  readonly name: string
  readonly #fd: number

  constructor(name: string) {
    this.name = name
    this.#fd = listenUnix(SOCK_SEQPACKET, `@${name}`)
    if (this.#fd < 0) throw new Error(`Cannot listen at @${name}: errno ${-this.#fd}`)
  }

  /** The next process that connects. */
  arrival(): SyscallServer {
    if (!isReadable(this.#fd, PATIENCE_MS)) throw new Error('No second process has come')
    return new SyscallServer(acceptUnix(this.#fd))
  }
}

export class SyscallServer {
  readonly #socket: number
  /** Where the bytes of a call are, in its memory. */
  readonly buffer: bigint

  constructor(socket: number) {
    this.#socket = socket
    this.buffer = BigInt(this.#exchange(BUFFER, [], new Uint8Array(0), []).answer)
  }

  /**
   * One system call: `>= 0` or `-errno`. The bytes lie at `buffer` when it is made, and are what
   * they have become when it is answered.
   */
  call(
    number: number,
    args: readonly (number | bigint)[],
    bytes: Uint8Array = new Uint8Array(0),
  ): number {
    return this.#exchange(number, args, bytes, []).answer
  }

  /** The number that it has for an fd of ours from now on. */
  receive(fd: number): number {
    return this.#exchange(RECEIVE, [], new Uint8Array(0), [fd]).answer
  }

  /** An fd of ours for one of its. */
  send(fd: number): number {
    return this.#exchange(SEND, [fd], new Uint8Array(0), []).fd
  }

  fork(): number {
    return this.#exchange(FORK, [], new Uint8Array(0), []).answer
  }

  /** Kills a child of its; there is nothing left of it then. */
  end(pid: number): void {
    const ended = this.#exchange(END, [pid], new Uint8Array(0), []).answer
    if (ended !== pid) throw new Error(`Cannot end process ${pid}: errno ${-ended}`)
  }

  hangUp(): void {
    sys.closeSync(this.#socket)
  }

  #exchange(
    number: number,
    args: readonly (number | bigint)[],
    bytes: Uint8Array,
    fds: readonly number[],
  ): { readonly answer: number; readonly fd: number } {
    const packet = new Uint8Array(HEADER + bytes.length)
    const words = new BigInt64Array(packet.buffer, 0, 8)
    words[0] = BigInt(number)
    for (const [index, word] of args.entries()) words[1 + index] = BigInt.asIntN(64, BigInt(word))
    words[7] = BigInt(bytes.length)
    packet.set(bytes, HEADER)
    const sent = sendMessage(this.#socket, packet, fds)
    if (sent < 0 || !isReadable(this.#socket, PATIENCE_MS))
      throw new Error(`The second process does not answer call ${number}`)
    const got = receiveMessage(this.#socket)
    if (typeof got === 'number' || got.bytes.length !== packet.length)
      throw new Error(`The second process is gone after call ${number}`)
    bytes.set(got.bytes.subarray(HEADER))
    const answer = Number(new DataView(got.bytes.buffer, got.bytes.byteOffset).getBigInt64(0, true))
    return { answer, fd: got.fds[0] ?? -1 }
  }
}
