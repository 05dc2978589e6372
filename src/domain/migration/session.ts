/**
 * One data transfer session: the fd that a state transition returned, and how far along it is.
 * The bytes are opaque and ordered; there is one reader or one writer at a time.
 */

import { VfiodError } from '../../base/error.ts'
import { Lane } from '../../base/lane.ts'
import { LIMITS } from '../../base/limits.ts'
import type { DataFd } from '../../base/units.ts'
import { readData, writeData } from '../../kernel/migration-calls.ts'
import type { Kernel } from '../../kernel/port.ts'

/** Free bytes before the data of a chunk, for the transport to frame it in place. */
export const HEAD_ROOM = 32

/** Bytes of device state. The buffer is used again once the next chunk is asked for. */
export interface Chunk {
  readonly buffer: Buffer
  /** Where in the buffer the data starts. */
  readonly headRoom: number
  readonly length: number
  /** Where in the session the data starts. */
  readonly offset: bigint
}

export class Session {
  readonly id: number
  readonly dataFd: DataFd
  /** Saving, or else resuming. */
  readonly isSaving: boolean
  /** Bytes handed to readers, or taken from writers. */
  bytes = 0n
  /** Set when bytes may have been lost or garbled; only a reset leads out. */
  broken: string | undefined
  isBusy = false
  /** Read from the device, but not handed out before its reader went away. */
  undelivered: Chunk | undefined
  /** Reads, writes and the close: an fd that is closed while it is read could be another's by then. */
  readonly #io = new Lane()
  readonly #onEnd: () => void
  #isEnded = false

  constructor(parts: {
    readonly id: number
    readonly dataFd: DataFd
    readonly isSaving: boolean
    readonly onEnd?: () => void
  }) {
    this.id = parts.id
    this.dataFd = parts.dataFd
    this.isSaving = parts.isSaving
    this.#onEnd = parts.onEnd ?? (() => {})
  }

  /** Use the fd, one call after another; SESSION_BROKEN once the device has left the session. */
  use<T>(operation: (dataFd: DataFd) => Promise<T>): Promise<T> {
    return this.#io.run(() => {
      if (!this.#isEnded) return operation(this.dataFd)
      throw new VfiodError(
        'SESSION_BROKEN',
        `Cannot go on with session ${this.id}: the device has left it; set the state that opens a new one`,
      )
    })
  }

  /** Close the fd, after what is under way: the kernel lets an orphaned fd go with ENODEV. */
  end(kernel: Kernel): Promise<number> {
    return this.use((dataFd) => {
      this.#isEnded = true
      this.#onEnd()
      return kernel.close(dataFd)
    })
  }
}

/** What has a session: an open device. */
export interface SessionHolder {
  readonly name: string
  session: Session | undefined
}

/** The device left its session: close the orphaned fd. */
export async function dropSession(kernel: Kernel, holder: SessionHolder): Promise<void> {
  const { session } = holder
  holder.session = undefined
  await session?.end(kernel)
}

/** The session of the device, of the wanted direction, for one exclusive user. */
export function takeSession(device: SessionHolder, wanted: 'saving' | 'resuming'): Session {
  const { session } = device
  if (session === undefined || session.isSaving !== (wanted === 'saving')) {
    const states = wanted === 'saving' ? 'PRE_COPY or STOP_COPY' : 'RESUMING'
    throw new VfiodError(
      'NO_SUCH_SESSION',
      `Cannot ${wanted === 'saving' ? 'read' : 'write'} the state of ${device.name}: it is in no ${wanted} session; set ${states} first`,
      { resource: { type: 'session', name: device.name } },
    )
  }
  if (session.broken !== undefined) throw brokenSession(device, session.broken)
  if (session.isBusy) {
    throw new VfiodError(
      'SESSION_BUSY',
      `Cannot use session ${session.id} of ${device.name}: another call is ${wanted === 'saving' ? 'reading' : 'writing'} it; wait for it or cancel it`,
      { resource: { type: 'session', name: device.name } },
    )
  }
  session.isBusy = true
  return session
}

export const brokenSession = (device: SessionHolder, why: string): VfiodError =>
  new VfiodError(
    'SESSION_BROKEN',
    `Cannot go on with the session of ${device.name}: ${why}; reset the device and start again`,
    { resource: { type: 'session', name: device.name } },
  )

/**
 * The bytes of a saving session until there are none. Two buffers: the device fills one while the
 * consumer sends the other. What was read ahead for a consumer that left is kept for the next one.
 */
export async function* readChunks(
  kernel: Kernel,
  session: Session,
  signal: AbortSignal,
): AsyncGenerator<Chunk, void> {
  const buffers = [newBuffer(), newBuffer()] as const
  let turn: 0 | 1 = 0
  let readTo = session.bytes
  const readAhead = async (): Promise<Chunk> => {
    const buffer = buffers[turn]
    turn = turn === 0 ? 1 : 0
    const into = buffer.subarray(HEAD_ROOM)
    const length = await session.use((dataFd) => readData(kernel, dataFd, into))
    const offset = readTo
    readTo += BigInt(length)
    return { buffer, headRoom: HEAD_ROOM, length, offset }
  }
  if (session.undelivered !== undefined) {
    const kept = session.undelivered
    session.undelivered = undefined
    readTo += BigInt(kept.length)
    session.bytes = readTo
    yield kept
  }
  let ahead: Promise<Chunk> | undefined
  try {
    for (ahead = readAhead(); !signal.aborted; ) {
      const chunk: Chunk = await ahead
      ahead = undefined
      if (chunk.length === 0) return
      if (signal.aborted) {
        session.undelivered = chunk
        return
      }
      ahead = readAhead()
      // Whether the next read fails is asked when its turn comes.
      ahead.catch(() => undefined)
      session.bytes = chunk.offset + BigInt(chunk.length)
      yield chunk
    }
  } finally {
    const left = await ahead?.catch(() => undefined)
    if (left !== undefined && left.length > 0) session.undelivered = left
  }
}

const newBuffer = (): Buffer => Buffer.allocUnsafeSlow(HEAD_ROOM + LIMITS.chunkBytes)

/** Give the device bytes that continue the session; it may take them in pieces. */
export async function writeAll(kernel: Kernel, session: Session, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const rest = data.subarray(done)
    const taken = await session.use((dataFd) => writeData(kernel, dataFd, rest))
    if (taken === 0)
      throw new VfiodError(
        'STATE_REFUSED_BY_DEVICE',
        'Cannot write the device state: the device takes no more bytes',
        { op: 'write of data_fd' },
      )
    done += taken
    session.bytes += BigInt(taken)
  }
}
