/**
 * One data transfer session: the stream that a state transition opened, and how far along it is. The
 * bytes are opaque and ordered; there is one reader or one writer at a time.
 *
 * Bytes that were sent may be lost in transit without the daemon knowing. So the last of them are kept,
 * and a reader that follows one that broke off says how many have arrived.
 */

import type { Chunk } from '../../base/chunk.ts'
import { VfiodError } from '../../base/error.ts'
import { Lane } from '../../base/lane.ts'
import type { StateStream } from './driver.ts'
import { KeptWindow } from './kept-window.ts'

/** One call that reads. */
export interface Reader {
  /** How many bytes have arrived; undefined for all that were handed out. */
  readonly from: bigint | undefined
  /** Names the connection that the bytes go to. */
  readonly connection: string
}

export class Session {
  readonly id: number
  /** Saving, or else resuming. */
  readonly isSaving: boolean
  /** Bytes handed to readers, or taken from writers. */
  bytes = 0n
  /** Set when bytes may have been garbled; only a reset leads out. */
  broken: string | undefined
  /** The last writer went away before it said that it was done. */
  isInterrupted = false
  /** Whether a reader or writer has it: see takeSession and leave. */
  isBusy = false
  /**
   * The connection that has received all the bytes, if it is still open: its last reader was sent the
   * end, and bytes on one connection arrive in order. Undefined while bytes may be lost.
   */
  arrivedOn: string | undefined
  readonly #stream: StateStream
  #kept: KeptWindow | undefined
  /** Reads, writes and the close: an fd that is closed while it is read could be another's by then. */
  readonly #io = new Lane()
  #isEnded = false

  constructor(parts: {
    readonly id: number
    readonly stream: StateStream
    readonly isSaving: boolean
  }) {
    this.id = parts.id
    this.#stream = parts.stream
    this.isSaving = parts.isSaving
  }

  /** The bytes of a saving session that are kept; made for its first reader. */
  get kept(): KeptWindow {
    this.#kept ??= new KeptWindow()
    return this.#kept
  }

  /** Use the stream, one call after another; SESSION_BROKEN once the device has left the session. */
  use<T>(operation: (stream: StateStream) => Promise<T>): Promise<T> {
    return this.#io.run(() => {
      if (!this.#isEnded) return operation(this.#stream)
      throw new VfiodError(
        'SESSION_BROKEN',
        `Cannot continue session ${this.id}: the device has left it; set the state that opens a new one`,
      )
    })
  }

  /** The reader or writer is done, and no transport holds a chunk of it. */
  leave(): void {
    this.isBusy = false
    if (this.#isEnded) this.#kept?.free()
  }

  /** Close the stream, after the calls that use it: the fd of a session that the device left is ENODEV. */
  end(): Promise<void> {
    return this.use((stream) => {
      this.#isEnded = true
      if (!this.isBusy) this.#kept?.free()
      return stream.close()
    })
  }
}

/** The owner of a session: an open device. */
export interface SessionHolder {
  readonly name: string
  session: Session | undefined
}

/** The device left its session: close the orphaned stream. */
export async function dropSession(holder: SessionHolder): Promise<void> {
  const { session } = holder
  holder.session = undefined
  await session?.end()
}

/** Which session a call wants: one of a direction, and of an id unless that is 0. */
export interface WantedSession {
  readonly direction: 'saving' | 'resuming'
  readonly id: bigint
}

/** The session of the device, for one exclusive user. */
export function takeSession(device: SessionHolder, { direction, id }: WantedSession): Session {
  const { session } = device
  const [verb, doing] = direction === 'saving' ? ['read', 'reading'] : ['write', 'writing']
  const resource = { type: 'session', name: device.name }
  if (session === undefined || session.isSaving !== (direction === 'saving')) {
    const states = direction === 'saving' ? 'PRE_COPY or STOP_COPY' : 'RESUMING'
    throw new VfiodError(
      'NO_SUCH_SESSION',
      `Cannot ${verb} the state of ${device.name}: it has no ${direction} session; set ${states} first`,
      { resource },
    )
  }
  if (id !== 0n && id !== BigInt(session.id)) {
    throw new VfiodError(
      'NO_SUCH_SESSION',
      `Cannot ${verb} session ${id} of ${device.name}: the device is in session ${session.id}; start again with its first byte`,
      { resource, field: 'session_id' },
    )
  }
  if (session.broken !== undefined) throw brokenSession(device, session.broken)
  if (session.isBusy) {
    throw new VfiodError(
      'SESSION_BUSY',
      `Cannot use session ${session.id} of ${device.name}: another call is ${doing} it; wait for it or cancel it`,
      { resource },
    )
  }
  session.isBusy = true
  return session
}

export const brokenSession = (device: SessionHolder, why: string): VfiodError =>
  new VfiodError(
    'SESSION_BROKEN',
    `Cannot continue the session of ${device.name}: ${why}; reset the device and start again`,
    { resource: { type: 'session', name: device.name } },
  )

/** The byte that a reader goes on with; refused where that could leave a hole. */
export function startOf(
  device: Pick<SessionHolder, 'name'>,
  session: Session,
  { from, connection }: Reader,
): bigint {
  const { bytes, id } = session
  if (bytes === 0n && (from ?? 0n) === 0n) return 0n
  const act = `Cannot continue reading session ${id} of ${device.name}`
  const { start } = session.kept
  if (from === undefined) {
    if (session.arrivedOn === connection) return bytes
    throw new VfiodError(
      'BAD_ARGUMENT',
      `${act}: ${bytes} bytes were sent to a reader that broke off or used another connection, and some may not have arrived; set from_offset to how many have, ${start} to ${bytes}`,
      { field: 'from_offset' },
    )
  }
  if (from > bytes) {
    throw new VfiodError(
      'BAD_ARGUMENT',
      `${act} from byte ${from}: only ${bytes} bytes have been sent; continue there`,
      { field: 'from_offset' },
    )
  }
  if (from >= start) return from
  throw new VfiodError(
    'SESSION_BROKEN',
    `${act}: bytes ${from}..${start - 1n} are lost: the daemon keeps those from ${start} on; reset the device and start again`,
    { field: 'from_offset', resource: { type: 'session', name: device.name } },
  )
}

/**
 * The bytes of a saving session from an offset on, until there are none. The device fills one part of
 * the window while the consumer sends another. What was read ahead for a consumer that left is kept.
 */
export async function* readChunks(
  session: Session,
  from: bigint,
  signal: AbortSignal,
): AsyncGenerator<Chunk, void> {
  const { kept } = session
  const handOut = (chunk: Chunk): Chunk => {
    session.arrivedOn = undefined
    if (chunk.end > session.bytes) session.bytes = chunk.end
    return chunk
  }
  const readAhead = async (): Promise<Chunk | undefined> => {
    const room = kept.room()
    const length = await session.use((stream) => stream.read(room))
    return length === 0 ? undefined : kept.keep(length)
  }
  for (const chunk of kept.from(from)) {
    if (signal.aborted) return
    yield handOut(chunk)
  }
  let ahead: Promise<Chunk | undefined> | undefined
  try {
    for (ahead = readAhead(); !signal.aborted; ) {
      const chunk: Chunk | undefined = await ahead
      ahead = undefined
      if (chunk === undefined || signal.aborted) return
      ahead = readAhead()
      // Whether the next read fails is asked when its turn comes.
      ahead.catch(() => undefined)
      yield handOut(chunk)
    }
  } finally {
    await ahead?.catch(() => undefined)
  }
}

/** Give the device bytes that continue the session; it may take them in pieces. */
export async function writeAll(session: Session, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const rest = data.subarray(done)
    const taken = await session.use((stream) => stream.write(rest))
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
