/** Migration of the open devices: their states, and the sessions that carry their bytes. */

import type { Chunk } from '../../base/chunk.ts'
import { VfiodError } from '../../base/error.ts'
import { hasDmaLogging } from '../../kernel/dma-log-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import type { MigFeatures, MigState } from '../../rules/mig-arcs.ts'
import { notOpen, type OpenDevice } from '../device/device.ts'
import type { Devices } from '../device/devices.ts'
import type { Client } from '../identity/clients.ts'
import type { Charge, Quotas } from '../identity/quotas.ts'
import type { State } from '../state/state.ts'
import type { PrecopyBytes } from './driver.ts'
import { Migrant } from './migrant.ts'
import { type Reader, readChunks, type Session, startOf, takeSession, writeAll } from './session.ts'
import { v2Driver } from './v2.ts'

export interface Capabilities {
  readonly features: MigFeatures
  readonly states: readonly MigState[]
  readonly hasDmaLogging: boolean
}

export interface StateView {
  readonly state: MigState
  readonly session: Session | undefined
}

export interface SessionReadRequest extends Reader {
  readonly name: string
  /** 0 is the session that the device is in. */
  readonly sessionId: bigint
}

/** One message of a writer; the device and the session are named by the first. */
export interface WriteMessage {
  readonly name: string
  readonly sessionId: bigint
  readonly offset: bigint
  readonly data: Uint8Array
}

/** How far a session is along when a call ends. */
export interface SessionTotal {
  readonly sessionId: number
  readonly totalBytes: bigint
}

export type ReadEvent =
  | { readonly kind: 'data'; readonly chunk: Chunk }
  | ({ readonly kind: 'end'; readonly isComplete: boolean } & SessionTotal)

export class Migration {
  readonly #kernel: Kernel
  readonly #devices: Devices
  readonly #quotas: Quotas
  readonly #state: State
  readonly #migrants = new WeakMap<OpenDevice, Migrant>()

  constructor(parts: {
    readonly kernel: Kernel
    readonly devices: Devices
    readonly quotas: Quotas
    readonly state: State
  }) {
    this.#kernel = parts.kernel
    this.#devices = parts.devices
    this.#quotas = parts.quotas
    this.#state = parts.state
  }

  async capabilities(client: Client, name: string): Promise<Capabilities> {
    const { device, driver } = await this.#migrantOf(client, name)
    return device.run(client, async () => ({
      features: driver.features,
      states: driver.states,
      hasDmaLogging: await hasDmaLogging(this.#kernel, device.fd),
    }))
  }

  async state(client: Client, name: string): Promise<StateView> {
    const migrant = await this.#migrantOf(client, name)
    return migrant.device.run(client, async () => ({
      state: await migrant.driver.state(),
      session: migrant.session,
    }))
  }

  /** Move the device to a state; answers when it is there. Bytes written are compared where given. */
  async setState(
    client: Client,
    name: string,
    target: MigState,
    writtenBytes?: bigint,
  ): Promise<StateView> {
    const migrant = await this.#migrantOf(client, name)
    return migrant.device.run(client, async () => {
      await migrant.move(client, this.#quotas, { target, writtenBytes })
      return { state: target, session: migrant.session }
    })
  }

  /** Bytes that STOP_COPY would yield if it were entered now. */
  async estimate(client: Client, name: string): Promise<bigint> {
    const { device, driver } = await this.#migrantOf(client, name)
    return device.run(client, async () => {
      const length = await driver.estimate()
      if (length !== undefined) return length
      throw new VfiodError(
        'UNSUPPORTED',
        `Cannot estimate the state of ${name}: its driver does not offer VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`,
        { op: 'VFIO_DEVICE_FEATURE_MIG_DATA_SIZE', errno: 'ENOTTY' },
      )
    })
  }

  async precopyInfo(client: Client, name: string): Promise<PrecopyBytes> {
    const migrant = await this.#migrantOf(client, name)
    return migrant.device.run(client, async () => {
      const state = await migrant.driver.state()
      if (migrant.session !== undefined && /^PRE_COPY/.test(state)) {
        return migrant.session.use((stream) => stream.precopy())
      }
      throw new VfiodError(
        'NO_SUCH_SESSION',
        `Cannot read the pre-copy information of ${name}: it is in ${state}; set PRE_COPY first`,
        { resource: { type: 'session', name } },
      )
    })
  }

  /** The bytes of the saving session, from where the reader says. */
  async *read(
    client: Client,
    request: SessionReadRequest,
    signal: AbortSignal,
  ): AsyncGenerator<ReadEvent, void> {
    const migrant = await this.#migrantOf(client, request.name)
    const { device, driver } = migrant
    const session = takeSession(migrant, { direction: 'saving', id: request.sessionId })
    const ends = device.until(signal)
    let charge: Charge | undefined
    try {
      let from = startOf(migrant, session, request)
      charge = this.#quotas.charge(client, { streams: 1n })
      for (;;) {
        // Asked before reading: an empty read is the end only if the device was in STOP_COPY by then.
        const state = await device.run(client, () => driver.state())
        for await (const chunk of readChunks(session, from, ends)) yield { kind: 'data', chunk }
        if (signal.aborted) return
        if (ends.aborted) {
          device.requireOwner(client)
          throw notOpen(device.name)
        }
        from = session.bytes
        const isComplete = state === 'STOP_COPY'
        const now = await device.run(client, () => driver.state())
        // It entered STOP_COPY while the last bytes were read: there may be more.
        if (!isComplete && now === 'STOP_COPY') continue
        yield { kind: 'end', isComplete, ...totalOf(session) }
        session.arrivedOn = request.connection
        return
      }
    } finally {
      session.leave()
      charge?.release()
    }
  }

  /** Take bytes for the resuming session until the writer ends. */
  async write(client: Client, messages: AsyncIterable<WriteMessage>): Promise<SessionTotal> {
    let migrant: Migrant | undefined
    let session: Session | undefined
    const charge = this.#quotas.charge(client, { streams: 1n })
    try {
      for await (const message of messages) {
        if (migrant === undefined || session === undefined) {
          migrant = await this.#migrantOf(client, message.name)
          session = takeSession(migrant, { direction: 'resuming', id: message.sessionId })
        }
        migrant.device.requireOwner(client)
        await writeOne(migrant, session, message)
      }
      if (session !== undefined) session.isInterrupted = false
    } catch (error) {
      if (session !== undefined) session.isInterrupted = true
      throw error
    } finally {
      session?.leave()
      charge.release()
    }
    if (session !== undefined) return totalOf(session)
    throw new VfiodError('BAD_ARGUMENT', 'Cannot write a session: no message arrived', {
      field: 'name',
    })
  }

  /** The caller's open device with the driver of its protocol, or UNSUPPORTED. */
  async #migrantOf(client: Client, name: string): Promise<Migrant> {
    const device = this.#devices.get(client, name)
    const known = this.#migrants.get(device)
    if (known !== undefined) return known
    return device.run(client, async () => {
      const driver = await v2Driver(this.#kernel, device.fd)
      if (driver === undefined) {
        throw new VfiodError(
          'UNSUPPORTED',
          `Cannot migrate ${name}: its driver does not offer VFIO_DEVICE_FEATURE_MIGRATION`,
          { op: 'VFIO_DEVICE_FEATURE_MIGRATION', errno: 'ENOTTY' },
        )
      }
      const migrant = this.#migrants.get(device) ?? new Migrant(device, driver, this.#state)
      this.#migrants.set(device, migrant)
      return migrant
    })
  }
}

const totalOf = ({ id, bytes }: Session): SessionTotal => ({ sessionId: id, totalBytes: bytes })

async function writeOne(migrant: Migrant, session: Session, message: WriteMessage): Promise<void> {
  if (migrant.session !== session) throw notOpen(migrant.name)
  if (message.offset !== session.bytes) {
    throw new VfiodError(
      'BAD_ARGUMENT',
      `Cannot write the state of ${migrant.name} at offset ${message.offset}: ${session.bytes} bytes have arrived; continue there`,
      { field: 'offset' },
    )
  }
  try {
    await writeAll(session, message.data)
  } catch (error) {
    // Drivers keep what they refused: leaving RESUMING could load garbage.
    session.broken = 'the device refused the written data'
    throw error
  }
}
