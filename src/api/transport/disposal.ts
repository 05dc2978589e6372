/**
 * Closing what clients have had a hand in. The last close of a file does what belongs to the file, in the
 * thread that closes: a TCP socket with SO_LINGER sleeps for as long as its owner likes, and a Unix socket
 * lets go of the fds in its queue, which may be such sockets. So a socket is shut down first, after which
 * nothing more can be sent to it, and closed here only where its queue has no fds. Everything else goes to a
 * process that is killed soon after: a process that ends does not linger.
 */
import { ERRNO } from '../../base/errno.ts'
import { closeChannels } from '../../os/channels.ts'
import { sys } from '../../os/libc.ts'
import { hasUnread, receiveMessage, shutdownSocket, untakenFds } from '../../os/unix-socket.ts'
import type { Log } from '../identity/log.ts'
import type { RunningFront, StartFront } from './running-front.ts'

/** How long a process holds what it was given, and how soon it is tried again where none could be started. */
const CLOSER_MS = 1000

/** Processes that were killed and are not gone. */
const LINGERING_MAX = 4

const NOTHING_TO_SERVE = Buffer.from(JSON.stringify({ speaks: 'nothing' }))

export class Disposal {
  readonly #start: StartFront
  readonly #log: Log
  /** Fds that wait for a process that takes them. */
  readonly #waiting: number[] = []
  #closer: RunningFront | undefined
  #timer: NodeJS.Timeout | undefined
  #running = 0
  #isClosed = false

  constructor(start: StartFront, log: Log) {
    this.#start = start
    this.#log = log
  }

  /** Closes a socket that a client, or a front, is connected to. */
  socket(fd: number): void {
    shutdownSocket(fd)
    if (untakenFds(fd) === 0) sys.closeSync(fd)
    else this.fds([fd])
  }

  /** The same for a stream that may be one of many thousands, most of which have sent nothing. */
  stream(fd: number): void {
    shutdownSocket(fd)
    if (hasUnread(fd)) this.socket(fd)
    else sys.closeSync(fd)
  }

  /** To be called before a listening socket is closed: closing it closes the connections that wait in it. */
  listening(fd: number): void {
    const own = untakenFds(fd) === 0 ? -1 : sys.dup(fd)
    // Negative, too, where the socket is closed already.
    if (own >= 0) this.fds([own])
  }

  /** Closes fds of any kind; they are no longer the caller's. */
  fds(fds: readonly number[]): void {
    this.#waiting.push(...fds)
    this.#pass()
  }

  /** The daemon ends: what waits is closed as its process ends. */
  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#end()
  }

  #pass(): void {
    // One more process at most: what does not go now is tried again in a second.
    for (let tries = 0; tries < 2; ) {
      const [fd] = this.#waiting
      const closer = fd === undefined ? undefined : (this.#closer ?? this.#started())
      if (fd === undefined || closer === undefined) break
      const answer = closer.packets.send(NOTHING_TO_SERVE, [fd])
      // What is in the packet is not the last, and closing it here does nothing else.
      if (answer >= 0) sys.closeSync(this.#waiting.shift() as number)
      // Sockets in sockets in sockets: the kernel does not pass on every depth of them.
      else if (answer !== -ERRNO.ETOOMANYREFS || !this.#takeApart(fd)) {
        tries += 1
        this.#end()
      }
    }
    const isDone = this.#closer === undefined && this.#waiting.length === 0
    if (this.#timer !== undefined || this.#isClosed || isDone) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#end()
      this.#pass()
    }, CLOSER_MS)
    this.#timer.unref()
  }

  /** Takes one message out of a socket, and the socket away where it has none; false for other files. */
  #takeApart(fd: number): boolean {
    const message = receiveMessage(fd)
    if (typeof message === 'number') return false
    this.#waiting.push(...message.fds)
    if (message.bytes.length === 0 && message.fds.length === 0)
      sys.closeSync(this.#waiting.shift() as number)
    return true
  }

  #started(): RunningFront | undefined {
    if (this.#isClosed || this.#running >= LINGERING_MAX) return undefined
    this.#running += 1
    try {
      this.#closer = this.#start(() => (this.#running -= 1))
    } catch (error) {
      this.#running -= 1
      this.#log.warn({ refusal: String(error) }, 'fds of clients are not closed yet')
    }
    return this.#closer
  }

  #end(): void {
    const closer = this.#closer
    this.#closer = undefined
    if (closer === undefined) return
    closer.kill()
    closeChannels(closer)
  }
}
