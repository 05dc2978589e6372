/**
 * The owner's end of the link to one front. The front is not trusted: it speaks for the connections
 * that it was given, and what it says is bounded and checked here, in bytes, calls and rate, before
 * anything is decoded. A front that breaks the rules is ended, and its connections with it.
 */
import { Buckets } from '../../base/bucket.ts'
import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { type FrameAbout, FrameWriter } from '../../link/frame-writer.ts'
import {
  FROM_FRONT,
  FROM_OWNER,
  type Frame,
  type FrameKind,
  HOW_TO_CLOSE,
  type HowToClose,
  LinkError,
} from '../../link/frames.ts'
import type { GivenConnection, RefusedCall } from '../../link/records.ts'
import { messageAt, SLOTS_OF, SlotWriter } from '../../link/slots.ts'
import type { Channels } from '../../os/channels.ts'
import { Deadline } from '../../os/deadline.ts'
import { METHODS } from '../../wire/methods.ts'
import { toVfiodError } from '../../wire/status.ts'
import { sendable, TEXT_MAX } from '../../wire/status-details.ts'
import type { Served } from '../call/call.ts'
import type { Pipeline } from '../call/pipeline.ts'
import type { ConnectionPeer } from '../identity/connection-peer.ts'
import type { Log } from '../identity/log.ts'
import type { Disposal } from './disposal.ts'
import { FrontFds, type PacketHead } from './front-fds.ts'
import { FrontReader } from './front-reader.ts'
import { GivenQueue } from './given-queue.ts'
import { type CallLink, LinkCall, statusPayload } from './link-call.ts'
import { type ServedCall, takeInCall } from './served-call.ts'

/** Calls of one connection at a time, as the HTTP/2 settings say. */
export const CALLS_PER_CONNECTION = 128

/** How often a front that serves connections is asked whether it runs, and how long it may take. */
const PING_MS = 5000
const PONG_MS = 15_000

/** The same for a front that has said nothing yet: Node may take its time to start. */
const START_MS = 120_000

/** Calls of one account: a front that sends more does not keep to LIMITS.streamsPerSecond. */
const CALL_RATE = {
  perSecond: LIMITS.streamsPerSecond * 2,
  burst: LIMITS.streamsPerSecond * 8,
} as const

/** Lines of the log for calls that a front refused. */
const REFUSED_LINES = { perSecond: 10, burst: 100 } as const

const EMPTY = Buffer.alloc(0)

const NO_CONNECTION: FrameAbout = { connection: 0 }

/** A connection that the owner accepted. */
export interface Owned {
  /** Names the connection to calls. */
  readonly token: string
  /** Of a client on another host. */
  readonly address?: string
  /** Who calls, or why calls are refused; neither before a remote client has shown a certificate. */
  state():
    | { readonly peer: ConnectionPeer | undefined; readonly refusal: VfiodError | undefined }
    | undefined
  /** The front says that its client has hung up, or the front has ended. */
  closed(): void
  /** The front says what name the certificate of the client has; throws LinkError where it may not. */
  named(name: string): void
  /** A packet came on the fd channel; throws LinkError where there is no such connection. */
  ticket(packet: PacketHead): void
}

export interface LinkRules {
  /** By path. */
  readonly served: ReadonlyMap<string, Served>
  readonly unknown: (path: string) => Served
  readonly pipeline: Pipeline
  readonly log: Log
}

interface Connection {
  readonly owned: Owned
  /** Held so that its last close is here, where it is looked at first. */
  readonly fd: number
  readonly calls: Map<number, ServedCall>
  /** It is being closed because its calls came too fast: none is served any more. */
  isTooFast: boolean
}

export class FrontLink {
  readonly #channels: Channels
  readonly #disposal: Disposal
  readonly #given: GivenQueue
  readonly #rules: LinkRules
  readonly #onEnd: (why: string) => void
  readonly #writer: FrameWriter
  readonly #fds: FrontFds
  readonly #ownSlots: SlotWriter
  /** The slots that the front fills: it may change them at any time. */
  readonly #frontSlots: Buffer
  readonly #connections = new Map<number, Connection>()
  readonly #rate = new Buckets()
  readonly #ungrantedRate = new Buckets()
  readonly #reader: FrontReader
  readonly #pinger = setInterval(() => this.#ping(), PING_MS)
  /** Set while an answer is waited for. */
  #pong: Deadline | undefined
  /** Whether any frame of it has come. */
  #hasStarted = false
  #hasEnded = false

  /** `onEnd` is called once, when the front has ended, or must be ended because of what it did. */
  constructor(parts: {
    readonly channels: Channels
    readonly disposal: Disposal
    /** Memory for large messages, LINK_MEMORY bytes. */
    readonly memory: Buffer
    readonly rules: LinkRules
    readonly onEnd: (why: string) => void
  }) {
    this.#channels = parts.channels
    this.#disposal = parts.disposal
    const { incoming, outgoing } = parts.channels
    this.#given = new GivenQueue(parts.channels.packets, () =>
      this.end('it does not take connections'),
    )
    this.#ownSlots = new SlotWriter(parts.memory.subarray(SLOTS_OF.owner, SLOTS_OF.front))
    this.#frontSlots = parts.memory.subarray(SLOTS_OF.front)
    this.#rules = parts.rules
    this.#onEnd = parts.onEnd
    for (const pipe of [incoming, outgoing]) {
      pipe.on('error', () => {})
      pipe.on('close', () => this.end('its link is closed'))
    }
    this.#pinger.unref()
    this.#writer = new FrameWriter(outgoing)
    this.#reader = new FrontReader(parts.channels, {
      writer: this.#writer,
      take: (frame) => this.#take(frame),
      end: (why) => this.end(why),
    })
    this.#fds = new FrontFds({
      frames: this.#writer,
      channels: parts.channels,
      disposal: parts.disposal,
      onLie: (why) => this.end(why),
    })
  }

  /** Connections that it serves. */
  get size(): number {
    return this.#connections.size
  }

  /** Give it a connection with this socket, which is closed here when the front has closed it. */
  give(given: GivenConnection, owned: Owned, fd: number): void {
    this.#connections.set(given.connection, { owned, fd, calls: new Map(), isTooFast: false })
    this.#given.give(given, fd)
  }

  closeConnection(connection: number, how: HowToClose): void {
    this.#write(FROM_OWNER.close, { connection }, Buffer.of(how))
  }

  /** Answer every call of a connection with this. */
  refuse(connection: number, refusal: VfiodError): void {
    this.#write(FROM_OWNER.refuse, { connection }, statusPayload(refusal))
  }

  say(kind: (typeof FROM_OWNER)['serving' | 'certificates' | 'end'], payload: Buffer): void {
    this.#write(kind, NO_CONNECTION, payload)
  }

  /** No frame of it is read any more: its connections are closed and their calls are cancelled. */
  end(why: string): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#reader.close()
    clearInterval(this.#pinger)
    this.#pong?.cancel()
    this.#channels.incoming.destroy()
    this.#channels.outgoing.destroy()
    this.#given.close()
    this.#fds.close()
    for (const id of [...this.#connections.keys()]) this.#close(id)
    this.#onEnd(why)
  }

  #ping(): void {
    if (this.#pong !== undefined || this.#connections.size === 0) return
    this.#write(FROM_OWNER.ping, NO_CONNECTION, EMPTY)
    this.#pong = this.#hasStarted
      ? new Deadline(PONG_MS, () => this.end('it does not run'))
      : new Deadline(START_MS, () => this.end('it has not started'))
  }

  #take(frame: Frame): void {
    if (this.#hasEnded) return
    this.#hasStarted = true
    const { kind, connection: id, call, payload } = frame
    if (kind === FROM_FRONT.pong) {
      this.#pong?.cancel()
      this.#pong = undefined
      return
    }
    if (kind === FROM_FRONT.slotFree) {
      if (payload.length !== 1 || !this.#ownSlots.release(payload.readUInt8()))
        throw new LinkError('a slot was freed that was not in use')
      return
    }
    const connection = this.#connections.get(id)
    if (connection === undefined) throw new LinkError(`connection ${id} was not given to it`)
    switch (kind) {
      case FROM_FRONT.open:
        this.#open(connection, frame, this.#methodOf(payload))
        break
      case FROM_FRONT.openUnknown: {
        const path = sendable(payload.toString('latin1'), TEXT_MAX)
        this.#open(connection, frame, this.#rules.unknown(path))
        break
      }
      case FROM_FRONT.closed:
        this.#close(id)
        break
      case FROM_FRONT.named:
        connection.owned.named(payload.toString('utf8'))
        break
      case FROM_FRONT.ticket:
        connection.owned.ticket(this.#fds.head(id, call, payload))
        break
      case FROM_FRONT.refused:
        this.#refused(connection, payload)
        break
      default: {
        // A call that is answered may have frames under way.
        const open = connection.calls.get(call)
        if (kind === FROM_FRONT.messageAt) {
          const message = this.#copyOf(payload)
          if (open !== undefined) takeInCall(open, FROM_FRONT.message, message)
        } else if (open !== undefined) takeInCall(open, kind, payload)
      }
    }
  }

  /** The message in a slot of the front, as it is now: it is looked at only after it was copied. */
  #copyOf(payload: Buffer): Buffer {
    const found = messageAt(this.#frontSlots, payload)
    if (found === undefined) throw new LinkError('a message lies in no slot')
    const copy = Buffer.from(found.bytes)
    this.#write(FROM_OWNER.slotFree, NO_CONNECTION, Buffer.of(found.slot))
    return copy
  }

  #methodOf(payload: Buffer): Served {
    const index = payload.length === 2 ? payload.readUInt16LE(0) : -1
    const path = METHODS[index]?.path
    if (path === undefined) throw new LinkError('a call is of no method')
    return this.#rules.served.get(path) ?? this.#rules.unknown(path)
  }

  /** The head of a call: whether it may be made is known before anything else of it is looked at. */
  #open(connection: Connection, frame: Frame, served: Served): void {
    const { owned, calls } = connection
    const { connection: id, call: callId } = frame
    if (calls.has(callId)) throw new LinkError(`call ${callId} is under way already`)
    const { peer, refusal } = owned.state() ?? {}
    if (peer === undefined && refusal === undefined)
      throw new LinkError('a call came on a connection without a name')
    // Above what a front lets pass, and what gathers while the owner is late.
    if (this.#rate.take(peer?.account ?? '', CALL_RATE) > 0)
      throw new LinkError('calls came too fast')
    if (this.#isTooFast(connection, peer)) {
      this.#closeTooFast(connection, id)
      return
    }
    const about = { connection: id, call: callId }
    const link: CallLink = {
      write: (kind, payload = EMPTY) => this.#write(kind, about, payload),
      sendMessage: (payload) => this.#flush(about, payload),
      ended: () => void calls.delete(callId),
    }
    const call = new LinkCall(link, owned.token)
    if (calls.size >= CALLS_PER_CONNECTION) {
      // Those that were cancelled have not ended yet.
      call.refuse(tooManyCalls(calls.size))
      return
    }
    calls.set(callId, { call, served })
    try {
      if (peer === undefined) throw refusal
      this.#rules.pipeline.admit(served.method, () => peer)
    } catch (error) {
      call.refuse(toVfiodError(error))
      // The next call comes by another connection.
      if (refusal !== undefined) this.closeConnection(id, HOW_TO_CLOSE.afterAnswers)
      return
    }
    if (served.isClientStream) served.serve(call)
  }

  /**
   * Calls of those whom the policy grants nothing, as it is now, are few: they are refused at little
   * cost, and a front that they share has the rest to bear.
   */
  #isTooFast(connection: Connection, peer: ConnectionPeer | undefined): boolean {
    if (connection.isTooFast || peer?.grant.role !== 'none') return connection.isTooFast
    const perSecond = LIMITS.streamsPerSecondUngranted
    return this.#ungrantedRate.take(peer.account, { perSecond, burst: perSecond * 2 }) > 0
  }

  #closeTooFast(connection: Connection, id: number): void {
    if (connection.isTooFast) return
    connection.isTooFast = true
    this.closeConnection(id, HOW_TO_CLOSE.tooFast)
    const refusal = `more than ${LIMITS.streamsPerSecondUngranted} calls in a second`
    this.#logRefused(connection, { method: '', reason: '', refusal })
  }

  #refused(connection: Connection, payload: Buffer): void {
    this.#logRefused(connection, refusedCallOf(payload))
  }

  #logRefused({ owned }: Connection, { method, reason, refusal }: RefusedCall): void {
    if (this.#rate.take('refused', REFUSED_LINES) > 0) return
    const { identity } = owned.state()?.peer ?? {}
    const { log } = this.#rules
    if (method !== '') log.info({ identity, method, reason, refusal }, 'call refused')
    else log.warn({ identity, address: owned.address, refusal }, 'connection refused')
  }

  #close(id: number): void {
    const connection = this.#connections.get(id)
    if (connection === undefined) return
    this.#connections.delete(id)
    this.#given.forget(id)
    this.#fds.forget(id)
    for (const { call } of [...connection.calls.values()]) call.cancel()
    connection.owned.closed()
    this.#disposal.socket(connection.fd)
  }

  #write(kind: FrameKind, about: FrameAbout, payload: Buffer): void {
    this.#writer.write(kind, about, payload)
  }

  #flush(about: FrameAbout, payload: Buffer): Promise<void> {
    const place = this.#ownSlots.put(payload)
    if (place !== undefined) {
      this.#write(FROM_OWNER.messageAt, about, place)
      return Promise.resolve()
    }
    return new Promise((resolve) => {
      if (!this.#writer.write(FROM_OWNER.message, about, payload, resolve)) resolve()
    })
  }
}

const tooManyCalls = (current: number): VfiodError =>
  new VfiodError(
    'LIMIT_REACHED',
    `Cannot serve the call: ${current} calls of this connection are under way, cancelled ones included; wait until some have ended`,
    {
      quota: {
        limit: 'calls of one connection',
        max: BigInt(CALLS_PER_CONNECTION),
        current: BigInt(current),
        needed: 1n,
      },
    },
  )

/** A front says so, and is believed as far as the log needs: short texts, and nothing else. */
const refusedCallOf = (payload: Buffer): RefusedCall => {
  let parsed: Partial<RefusedCall>
  try {
    parsed = JSON.parse(payload.toString('utf8'))
  } catch {
    throw new LinkError('a record is not JSON')
  }
  const text = (value: unknown): string => sendable(String(value ?? ''), TEXT_MAX)
  return {
    method: text(parsed?.method),
    reason: text(parsed?.reason),
    refusal: text(parsed?.refusal),
  }
}
