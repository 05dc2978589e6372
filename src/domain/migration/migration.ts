/** Migration of one device by protocol v2: its states, and the sessions that carry its bytes. */

import { VfiodError } from '../../base/error.ts'
import type { DataFd } from '../../base/units.ts'
import { hasDmaLogging } from '../../kernel/dma-log-calls.ts'
import {
  getState,
  type PrecopyInfo,
  precopyInfo,
  setState,
  stopCopyLength,
} from '../../kernel/migration-calls.ts'
import type { Kernel } from '../../kernel/port.ts'
import {
  hasState,
  isSaving,
  MIG_STATES,
  type MigFeatures,
  type MigState,
  pathOf,
  sessionEffect,
} from '../../rules/mig-arcs.ts'
import { notOpen, type OpenDevice } from '../device/device.ts'
import type { Devices } from '../device/devices.ts'
import type { Client } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import {
  brokenSession,
  type Chunk,
  dropSession,
  readChunks,
  Session,
  type SessionHolder,
  takeSession,
  writeAll,
} from './session.ts'

export interface Capabilities {
  readonly features: MigFeatures
  readonly states: readonly MigState[]
  readonly hasDmaLogging: boolean
}

export interface StateView {
  readonly state: MigState
  readonly session: Session | undefined
}

/** One message of a writer; the device is named by the first. */
export interface WriteMessage {
  readonly name: string
  readonly offset: bigint
  readonly data: Uint8Array
}

export type ReadEvent =
  | { readonly kind: 'data'; readonly chunk: Chunk }
  | { readonly kind: 'end'; readonly totalBytes: bigint; readonly isComplete: boolean }

/** What migration keeps of one open device. */
class Migrant implements SessionHolder {
  readonly device: OpenDevice
  /** Sessions that were opened, for their numbers. */
  opened = 0
  #session: Session | undefined

  constructor(device: OpenDevice) {
    this.device = device
  }

  get name(): string {
    return this.device.name
  }

  get session(): Session | undefined {
    return this.#session
  }

  set session(session: Session | undefined) {
    this.#session = session
    this.device.isInSession = session !== undefined
  }
}

export class Migration {
  readonly #kernel: Kernel
  readonly #devices: Devices
  readonly #quotas: Quotas
  readonly #migrants = new WeakMap<OpenDevice, Migrant>()

  constructor(parts: {
    readonly kernel: Kernel
    readonly devices: Devices
    readonly quotas: Quotas
  }) {
    this.#kernel = parts.kernel
    this.#devices = parts.devices
    this.#quotas = parts.quotas
  }

  async capabilities(client: Client, name: string): Promise<Capabilities> {
    const { device, features } = this.#migratable(client, name)
    return device.run(client, async () => ({
      features,
      states: MIG_STATES.filter((state) => state !== 'ERROR' && hasState(state, features)),
      hasDmaLogging: await hasDmaLogging(this.#kernel, device.fd),
    }))
  }

  async state(client: Client, name: string): Promise<StateView> {
    const { device } = this.#migratable(client, name)
    return device.run(client, async () => ({
      state: await this.#stateOf(device),
      session: this.#migrantOf(device).session,
    }))
  }

  /** Move the device to a state; answers when it is there. */
  async setState(client: Client, name: string, target: MigState): Promise<StateView> {
    const { device, features } = this.#migratable(client, name)
    return device.run(client, async () => {
      const current = await this.#stateOf(device)
      requireWay(device, features, { current, target })
      const broken = this.#migrantOf(device).session?.broken
      if (current === 'RESUMING' && target !== 'RESUMING' && broken !== undefined) {
        throw brokenSession(this.#migrantOf(device), broken)
      }
      await this.#move(device, { current, target, opens: opensSession(current, target, features) })
      return { state: target, session: this.#migrantOf(device).session }
    })
  }

  /** Bytes that STOP_COPY would yield if it were entered now. */
  async estimate(client: Client, name: string): Promise<bigint> {
    const { device } = this.#migratable(client, name)
    return device.run(client, async () => {
      const length = await stopCopyLength(this.#kernel, device.fd)
      if (length !== undefined) return length
      throw new VfiodError(
        'UNSUPPORTED',
        `Cannot estimate the state of ${name}: its driver does not offer VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`,
        { op: 'VFIO_DEVICE_FEATURE_MIG_DATA_SIZE', errno: 'ENOTTY' },
      )
    })
  }

  async precopyInfo(client: Client, name: string): Promise<PrecopyInfo> {
    const { device } = this.#migratable(client, name)
    return device.run(client, async () => {
      const state = await this.#stateOf(device)
      const { session } = this.#migrantOf(device)
      if (session !== undefined && /^PRE_COPY/.test(state)) {
        return session.use((dataFd) => precopyInfo(this.#kernel, dataFd))
      }
      throw new VfiodError(
        'NO_SUCH_SESSION',
        `Cannot read the pre-copy information of ${name}: it is in ${state}; set PRE_COPY first`,
        { resource: { type: 'session', name } },
      )
    })
  }

  /** The bytes of the saving session, from where the last reader stopped. */
  async *read(client: Client, name: string, signal: AbortSignal): AsyncGenerator<ReadEvent, void> {
    const { device } = this.#migratable(client, name)
    const session = takeSession(this.#migrantOf(device), 'saving')
    const ends = device.until(signal)
    try {
      this.#quotas.take(client, { streams: 1n })
    } catch (error) {
      session.isBusy = false
      throw error
    }
    try {
      for (;;) {
        // Asked before reading: an empty read is the end only if the device was in STOP_COPY by then.
        const state = await device.run(client, () => this.#stateOf(device))
        for await (const chunk of readChunks(this.#kernel, session, ends)) {
          yield { kind: 'data', chunk }
        }
        if (signal.aborted) return
        if (ends.aborted) {
          device.requireOwner(client)
          throw notOpen(device.name)
        }
        const isComplete = state === 'STOP_COPY'
        const now = await device.run(client, () => this.#stateOf(device))
        // It entered STOP_COPY while the last bytes were read: there may be more.
        if (!isComplete && now === 'STOP_COPY') continue
        yield { kind: 'end', totalBytes: session.bytes, isComplete }
        return
      }
    } finally {
      session.isBusy = false
      this.#quotas.give(client, { streams: 1n })
    }
  }

  /** Take bytes for the resuming session until the writer ends. */
  async write(client: Client, messages: AsyncIterable<WriteMessage>): Promise<bigint> {
    let device: OpenDevice | undefined
    let session: Session | undefined
    this.#quotas.take(client, { streams: 1n })
    try {
      for await (const message of messages) {
        if (device === undefined || session === undefined) {
          device = this.#migratable(client, message.name).device
          session = takeSession(this.#migrantOf(device), 'resuming')
        }
        device.requireOwner(client)
        await this.#writeOne(device, session, message)
      }
    } catch (error) {
      if (session !== undefined) session.broken ??= 'its writer broke off'
      throw error
    } finally {
      if (session !== undefined) session.isBusy = false
      this.#quotas.give(client, { streams: 1n })
    }
    if (session !== undefined) return session.bytes
    throw new VfiodError('BAD_ARGUMENT', 'Cannot write a session: no message arrived', {
      field: 'name',
    })
  }

  async #writeOne(device: OpenDevice, session: Session, message: WriteMessage): Promise<void> {
    if (this.#migrantOf(device).session !== session) throw notOpen(device.name)
    if (message.offset !== session.bytes) {
      throw new VfiodError(
        'BAD_ARGUMENT',
        `Cannot write the state of ${device.name} at offset ${message.offset}: ${session.bytes} bytes have arrived; continue there`,
        { field: 'offset' },
      )
    }
    try {
      await writeAll(this.#kernel, session, message.data)
    } catch (error) {
      // Drivers keep what they refused: leaving RESUMING could load garbage.
      session.broken = 'the device refused what was written'
      throw error
    }
  }

  async #move(
    device: OpenDevice,
    move: { readonly current: MigState; readonly target: MigState; readonly opens: boolean },
  ): Promise<void> {
    const { current, target, opens } = move
    const { owner } = device.space
    const migrant = this.#migrantOf(device)
    if (opens) this.#quotas.take(owner, { sessions: 1n })
    let dataFd: DataFd | undefined
    try {
      dataFd = await setState(this.#kernel, device.fd, target)
    } catch (error) {
      if (opens) this.#quotas.give(owner, { sessions: 1n })
      throw await this.#failedMove(device, { current, target, error })
    }
    const isSame = current === target || (isSaving(current) && isSaving(target))
    if (!isSame || dataFd !== undefined) await dropSession(this.#kernel, migrant)
    if (dataFd === undefined) {
      if (opens) this.#quotas.give(owner, { sessions: 1n })
      return
    }
    migrant.opened += 1
    migrant.session = new Session({
      id: migrant.opened,
      dataFd,
      isSaving: isSaving(target),
      onEnd: () => this.#quotas.give(device.space.owner, { sessions: 1n }),
    })
  }

  /** What the kernel wrote back is not to be trusted after a failure, so the device is asked. */
  async #failedMove(
    device: OpenDevice,
    tried: { readonly current: MigState; readonly target: MigState; readonly error: unknown },
  ): Promise<unknown> {
    const { current, target, error } = tried
    if (!(error instanceof VfiodError)) return error
    const now = await this.#stateOf(device).catch(() => undefined)
    if (now !== undefined && now !== current)
      await dropSession(this.#kernel, this.#migrantOf(device))
    const rests = now === undefined ? 'its state cannot be read' : `it is in ${now}`
    const isLoad = current === 'RESUMING' && now === 'RESUMING'
    return new VfiodError(
      isLoad ? 'STATE_REFUSED_BY_DEVICE' : now === 'ERROR' ? 'DEVICE_IN_ERROR' : error.reason,
      isLoad
        ? `Cannot set ${target} on ${device.name}: the device refused the state it was given (${error.details.errno}), which is incomplete or not its own; ${rests}; reset it`
        : `Cannot set ${target} on ${device.name}: the device answered ${error.details.errno}; ${rests}`,
      error.details,
      error,
    )
  }

  /** A reset and the close of the device end its session. */
  #migrantOf(device: OpenDevice): Migrant {
    const known = this.#migrants.get(device)
    if (known !== undefined) return known
    const migrant = new Migrant(device)
    const drop = () => dropSession(this.#kernel, migrant)
    device.hooks.add({ onReset: drop, onClosing: drop })
    this.#migrants.set(device, migrant)
    return migrant
  }

  async #stateOf(device: OpenDevice): Promise<MigState> {
    const state = await getState(this.#kernel, device.fd)
    if (state !== undefined) return state
    throw new VfiodError('UNSUPPORTED', `Cannot read the migration state of ${device.name}`)
  }

  #migratable(client: Client, name: string): { device: OpenDevice; features: MigFeatures } {
    const device = this.#devices.get(client, name)
    if (device.migration !== undefined) return { device, features: device.migration }
    throw new VfiodError(
      'UNSUPPORTED',
      `Cannot migrate ${name}: its driver does not offer VFIO_DEVICE_FEATURE_MIGRATION`,
      { op: 'VFIO_DEVICE_FEATURE_MIGRATION', errno: 'ENOTTY' },
    )
  }
}

/** Whether the way to a state opens a new session. */
function opensSession(from: MigState, to: MigState, features: MigFeatures): boolean {
  const path = [from, ...(pathOf(from, to, features) ?? [])]
  return path.slice(1).some((state, n) => /^opens/.test(sessionEffect(path[n] ?? from, state)))
}

function requireWay(
  device: OpenDevice,
  features: MigFeatures,
  { current, target }: { readonly current: MigState; readonly target: MigState },
): void {
  const act = `Cannot set ${target} on ${device.name}`
  if (target === 'ERROR') {
    throw new VfiodError(
      'ARC_BLOCKED',
      `${act}: only a device puts itself into ERROR; choose another state`,
    )
  }
  if (current === 'ERROR') {
    throw new VfiodError('DEVICE_IN_ERROR', `${act}: the device is in ERROR; reset it first`)
  }
  if (!hasState(target, features)) {
    const lacks = [!features.p2p && 'P2P', !features.preCopy && 'PRE_COPY'].filter(Boolean)
    throw new VfiodError('UNSUPPORTED', `${act}: the device lacks ${lacks.join(' and ')}`)
  }
  if (pathOf(current, target, features) !== null) return
  throw new VfiodError(
    'ARC_BLOCKED',
    `${act}: there is no way from ${current}, which would have to leave the session; set STOP or RUNNING first`,
  )
}
