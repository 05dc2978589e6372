/** The migration part of one open device: the driver of its protocol, and its session. */

import { VfiodError } from '../../base/error.ts'
import { KernelRefusal } from '../../kernel/refusal.ts'
import { CAUSES, type CauseId } from '../../rules/causes/catalog.ts'
import { ruledOut, type Verdict } from '../../rules/causes/cause.ts'
import { isSaving, type MigState, sessionEffect } from '../../rules/mig-arcs.ts'
import type { OpenDevice } from '../device/device.ts'
import type { Client } from '../identity/clients.ts'
import type { Quotas } from '../identity/quotas.ts'
import type { State } from '../state/state.ts'
import { SESSION_PRICE } from '../state/usage.ts'
import type { MigrationDriver, StateStream } from './driver.ts'
import { brokenSession, dropSession, Session, type SessionHolder } from './session.ts'

export class Migrant implements SessionHolder {
  readonly device: OpenDevice
  readonly driver: MigrationDriver
  /** Sessions that were opened, for their numbers. */
  #opened = 0
  #session: Session | undefined
  readonly #state: State

  /** A reset and the close of the device end its session. */
  constructor(device: OpenDevice, driver: MigrationDriver, state: State) {
    this.#state = state
    this.device = device
    this.driver = driver
    const drop = () => dropSession(this)
    device.hooks.add({ onReset: drop, onClosing: drop })
  }

  get name(): string {
    return this.device.name
  }

  get session(): Session | undefined {
    return this.#session
  }

  set session(session: Session | undefined) {
    const device = this.name
    if (this.#session !== undefined) this.#state.apply({ kind: 'session-ended', device })
    this.#session = session
    if (session === undefined) return
    const { id, isSaving } = session
    this.#state.apply({ kind: 'session-opened', session: { device, id, isSaving } })
  }

  /** Move the device to a state for a client, or refuse. Runs in the lane of the device. */
  async move(
    client: Client,
    quotas: Quotas,
    to: { readonly target: MigState; readonly writtenBytes?: bigint | undefined },
  ): Promise<void> {
    const { target } = to
    const current = await this.driver.state()
    requireWay(this, current, target)
    if (to.writtenBytes !== undefined && current !== 'RESUMING') throw nothingWritten(this, current)
    if (current === 'RESUMING' && target !== 'RESUMING') requireWhole(this, to)
    const opens = opensSession(this.driver, current, target)
    const charge = opens ? quotas.charge(client, SESSION_PRICE) : undefined
    try {
      const stream = await this.#set(current, target)
      const isSame = current === target || (isSaving(current) && isSaving(target))
      if (!isSame || stream !== undefined) await dropSession(this)
      if (stream === undefined) return
      this.#opened += 1
      this.session = new Session({ id: this.#opened, stream, isSaving: isSaving(target) })
    } finally {
      charge?.release()
    }
  }

  async #set(current: MigState, target: MigState): Promise<StateStream | undefined> {
    try {
      return await this.driver.set(target)
    } catch (error) {
      throw await this.#failed({ current, target, error })
    }
  }

  /** The error of a move that failed. A failed arc may have led elsewhere, so the device is asked. */
  async #failed(tried: {
    readonly current: MigState
    readonly target: MigState
    readonly error: unknown
  }): Promise<unknown> {
    const { current, target, error } = tried
    if (!(error instanceof KernelRefusal)) return error
    const now = await this.driver.state().catch(() => undefined)
    if (now !== undefined && now !== current) await dropSession(this)
    const rests = now === undefined ? 'its state cannot be read' : `it is in ${now}`
    const judged = error.judged(judgeArc({ current, now }))
    const { causes, details } = judged
    const reason = now === 'ERROR' ? 'DEVICE_IN_ERROR' : judged.reason
    const act = `Cannot set ${target} on ${this.name}: the device answered ${error.errno}`
    const why = causes.map((cause) => `${CAUSES[cause].found}; ${CAUSES[cause].fix}`).join('. Or ')
    const message = why === '' ? `${act}; ${rests}` : `${act}, and ${rests}: ${why}`
    const deviceState = now ?? 'UNKNOWN'
    return new VfiodError(reason, message, { ...details, deviceState }, error)
  }
}

/** Whether the way to a state opens a new session. */
function opensSession(driver: MigrationDriver, from: MigState, to: MigState): boolean {
  const path = [from, ...(driver.path(from, to) ?? [])]
  return path.slice(1).some((state, n) => /^opens/.test(sessionEffect(path[n] ?? from, state)))
}

function requireWay({ name, driver }: Migrant, current: MigState, target: MigState): void {
  const act = `Cannot set ${target} on ${name}`
  if (target === 'ERROR') {
    throw new VfiodError(
      'ARC_BLOCKED',
      `${act}: only a device puts itself into ERROR; choose another state`,
    )
  }
  if (current === 'ERROR') {
    throw new VfiodError('DEVICE_IN_ERROR', `${act}: the device is in ERROR; reset it first`, {
      deviceState: current,
    })
  }
  if (!driver.states.includes(target)) {
    const { p2p, preCopy } = driver.features
    const lacks = [!p2p && 'P2P', !preCopy && 'PRE_COPY'].filter(Boolean)
    throw new VfiodError('UNSUPPORTED', `${act}: the device lacks ${lacks.join(' and ')}`)
  }
  if (driver.path(current, target) !== null) return
  throw new VfiodError(
    'ARC_BLOCKED',
    `${act}: there is no way from ${current}, which would have to leave the session; set STOP or RUNNING first`,
    { deviceState: current },
  )
}

const nothingWritten = ({ name }: Migrant, current: MigState): VfiodError =>
  new VfiodError(
    'BAD_ARGUMENT',
    `Cannot compare written_bytes on ${name}: it is in ${current}, where nothing is written to it; leave it 0`,
    { field: 'written_bytes' },
  )

/** Leaving RESUMING loads the written state, so it must be complete. */
function requireWhole(
  migrant: Migrant,
  {
    target,
    writtenBytes,
  }: { readonly target: MigState; readonly writtenBytes?: bigint | undefined },
): void {
  const { session, name } = migrant
  if (session?.broken !== undefined) throw brokenSession(migrant, session.broken)
  if (session?.isBusy) {
    throw new VfiodError(
      'SESSION_BUSY',
      `Cannot set ${target} on ${name}: a writer of session ${session.id} is still writing after ${session.bytes} bytes; wait for it or cancel it`,
      { resource: { type: 'session', name } },
    )
  }
  const given = session?.bytes ?? 0n
  if (writtenBytes !== undefined && writtenBytes !== given) {
    throw new VfiodError(
      'ARC_BLOCKED',
      `Cannot set ${target} on ${name}: its session has ${given} bytes, and the caller says that it has written ${writtenBytes}; ${given < writtenBytes ? 'continue writing there' : 'another client has written to it'}, or reset the device`,
      { resource: { type: 'session', name } },
    )
  }
  if (!session?.isInterrupted) return
  throw new VfiodError(
    'ARC_BLOCKED',
    `Cannot set ${target} on ${name}: the writer of session ${session.id} broke off after ${session.bytes} bytes; continue writing there, or reset the device`,
    { resource: { type: 'session', name } },
  )
}

/** Why a device did not go to a state, by the states that it was in and is in. */
function judgeArc(at: {
  readonly current: MigState
  readonly now: MigState | undefined
}): Verdict<CauseId>[] {
  const { current, now } = at
  if (now === 'ERROR') {
    const found = 'the device failed on an arc and is in ERROR'
    return [{ cause: 'device-in-error', isSo: true, found }]
  }
  if (current === 'RESUMING' && now === 'RESUMING')
    return ruledOut('arc-blocked', 'device-in-error')
  const verdicts = ruledOut<CauseId>('state-refused')
  // It has told its state, so it is awake.
  if (now !== undefined) verdicts.push(...ruledOut<CauseId>('device-does-not-wake'))
  return now === undefined ? verdicts : [...verdicts, ...ruledOut<CauseId>('device-in-error')]
}
