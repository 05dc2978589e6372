/** mtty saved as a stream and loaded into another instance, byte for byte, through gRPC. */

import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, mttyDevices, openIn, removeMttyDevices, startDaemon, until } from './world.ts'

/** The scratch register of the first port: a byte that goes along with the state. */
const SCRATCH = { region: 0, offset: '7' } as const
const MAGIC = 0x7e9d09898c3e2c4en
const STATE_BYTES = 96

let daemon: Daemon
let client: VfiodClient
let source: string
let target: string

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
  ;[source, target] = await mttyDevices(client)
  await openIn(client, 'source', source)
  await openIn(client, 'target', target)
})

beforeEach(async () => {
  await client.device.resetDevice({ name: source })
  await client.device.resetDevice({ name: target })
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
  removeMttyDevices()
})

const setState = (name: string, state: Parameters<typeof client.migration.setMigrationState>[0]) =>
  client.migration.setMigrationState({ ...state, name })

const scratch = async (name: string): Promise<number> => {
  const { data } = await client.device.readRegion({ name, ...SCRATCH, length: 1 })
  return data[0] ?? -1
}
const setScratch = (name: string, value: number) =>
  client.device.writeRegion({ name, ...SCRATCH, data: Buffer.of(value) })

type Calls = VfiodClient['migration']

/** Everything a read of the session gives, and how it ended. */
async function readAll(messages: ReturnType<Calls['readSession']>) {
  const pieces: Buffer[] = []
  let end: { sessionId: string; totalBytes: string; complete: boolean } | undefined
  for await (const message of messages) {
    if (message.end) end = message.end
    else pieces.push(Buffer.from(message.data))
  }
  return { bytes: Buffer.concat(pieces), end }
}
const readFrom = (calls: Calls, request: Parameters<Calls['readSession']>[0]) =>
  readAll(calls.readSession(request))
const read = (name: string) => readFrom(client.migration, { name })

const inPieces = (bytes: Buffer, size: number) =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) => ({
    ...(n === 0 ? { name: target } : {}),
    offset: String(n * size),
    data: bytes.subarray(n * size, (n + 1) * size),
  }))

/** The whole state of the source, taken through pre-copy. */
async function save(): Promise<Buffer> {
  await setState(source, { state: 'MIGRATION_STATE_PRE_COPY' })
  const first = await read(source)
  await setState(source, { state: 'MIGRATION_STATE_STOP_COPY' })
  const rest = await read(source)
  expect(first.end).toMatchObject({ complete: false, totalBytes: String(first.bytes.length) })
  expect(rest.end).toMatchObject({ complete: true, totalBytes: String(STATE_BYTES) })
  return Buffer.concat([first.bytes, rest.bytes])
}

describe('migration through gRPC', () => {
  test('says what the device can do', async () => {
    const can = await client.migration.getMigrationCapabilities({ name: source })

    expect(can).toMatchObject({ stopCopy: true, p2p: true, preCopy: true, dmaLogging: true })
    expect(can.states).toHaveLength(7)
  })

  test('estimates the size of the state', async () => {
    const estimate = await client.migration.estimateSize({ name: source })

    expect(estimate.stopCopyBytes).toBe(String(STATE_BYTES))
  })

  test('saves one device and loads another, byte for byte', async () => {
    await setScratch(source, 0x5a)
    await setScratch(target, 0x11)

    const bytes = await save()
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
    const { totalBytes } = await client.migration.writeSession(inPieces(bytes, 7))
    await setState(target, { state: 'MIGRATION_STATE_RUNNING' })

    expect(bytes.readBigUInt64LE()).toBe(MAGIC)
    expect(totalBytes).toBe(String(STATE_BYTES))
    expect(await scratch(target)).toBe(0x5a)
    await setState(target, { state: 'MIGRATION_STATE_STOP_COPY' })
    expect((await read(target)).bytes).toEqual(bytes)
  })

  test('tells what is left to read before the switch', async () => {
    await setState(source, { state: 'MIGRATION_STATE_PRE_COPY' })

    const before = await client.migration.getPrecopyInfo({ name: source })
    await read(source)
    const after = await client.migration.getPrecopyInfo({ name: source })

    expect(before).toEqual({ initialBytes: '24', dirtyBytes: '0' })
    expect(after).toEqual({ initialBytes: '0', dirtyBytes: '0' })
  })

  test('gives each session a number and counts its bytes', async () => {
    await setState(source, { state: 'MIGRATION_STATE_STOP_COPY' })
    await read(source)

    const { state, session } = await client.migration.getMigrationState({ name: source })

    expect(state).toBe('MIGRATION_STATE_STOP_COPY')
    expect(session).toMatchObject({ saving: true, bytes: String(STATE_BYTES) })
  })

  test('refuses to leave RESUMING with less than the whole state: STATE_REFUSED_BY_DEVICE', async () => {
    const bytes = await save()
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
    await client.migration.writeSession(inPieces(bytes.subarray(0, 40), 40))

    const refused = setState(target, { state: 'MIGRATION_STATE_RUNNING' })

    await expect(refused).rejects.toMatchObject({ reason: 'STATE_REFUSED_BY_DEVICE' })
    await expect(refused).rejects.toThrow(/it is in RESUMING: .*; reset it/)
    await expect(refused).rejects.toMatchObject({ details: { deviceState: 'RESUMING' } })
    await client.device.resetDevice({ name: target })
    expect(await client.migration.getMigrationState({ name: target })).toMatchObject({
      state: 'MIGRATION_STATE_RUNNING',
      session: null,
    })
  })

  test('never loads a state whose writing failed: SESSION_BROKEN until reset', async () => {
    const garbage = Buffer.alloc(STATE_BYTES, 0xee)
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })

    const written = client.migration.writeSession(inPieces(garbage, 24))

    await expect(written).rejects.toMatchObject({ reason: 'STATE_REFUSED_BY_DEVICE' })
    await expect(setState(target, { state: 'MIGRATION_STATE_STOP' })).rejects.toMatchObject({
      reason: 'SESSION_BROKEN',
    })
    await client.device.resetDevice({ name: target })
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
  })

  test('gives a reader that broke off the bytes from the one that it names', async () => {
    await setState(source, { state: 'MIGRATION_STATE_STOP_COPY' })
    const whole = await read(source)
    const { sessionId = '' } = whole.end ?? {}

    const other = daemon.client().migration
    const withoutOffset = other.readSession({ name: source })
    const later = await readFrom(other, { name: source, sessionId, fromOffset: '90' })
    const again = await readFrom(other, { name: source, sessionId, fromOffset: '0' })

    await expect(readAll(withoutOffset)).rejects.toMatchObject({
      reason: 'BAD_ARGUMENT',
      details: { field: 'from_offset' },
    })
    expect(later.bytes).toEqual(whole.bytes.subarray(90))
    expect(later.end).toEqual({ sessionId, totalBytes: String(STATE_BYTES), complete: true })
    expect(again.bytes).toEqual(whole.bytes)
    await expect(
      readFrom(other, { name: source, sessionId: String(Number(sessionId) + 1) }),
    ).rejects.toMatchObject({ reason: 'NO_SUCH_SESSION' })
  })

  test('lets a writer go on where another broke off, and loads nothing before it ended', async () => {
    await setScratch(source, 0x5b)
    const bytes = await save()
    const { session } = await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
    const sessionId = session?.sessionId ?? ''
    // The daemon itself ends this writer, so no end of the stream is on its way.
    const broken = client.migration.writeSession([
      { name: target, sessionId, offset: '0', data: bytes.subarray(0, 40) },
      { offset: '50', data: bytes.subarray(50) },
    ])

    await expect(broken).rejects.toThrow('40 bytes have arrived; continue there')
    const { session: left } = await client.migration.getMigrationState({ name: target })
    const refused = setState(target, { state: 'MIGRATION_STATE_RUNNING' })
    await expect(refused).rejects.toMatchObject({ reason: 'ARC_BLOCKED' })
    await expect(refused).rejects.toThrow('broke off after 40 bytes; continue writing there')
    const { totalBytes } = await client.migration.writeSession([
      { name: target, sessionId, offset: left?.bytes ?? '', data: bytes.subarray(40) },
    ])
    await setState(target, { state: 'MIGRATION_STATE_RUNNING' })

    expect(totalBytes).toBe(String(STATE_BYTES))
    expect(await scratch(target)).toBe(0x5b)
  })

  test('loads nothing where the writer counts other bytes than have arrived: ARC_BLOCKED', async () => {
    await setScratch(source, 0x5c)
    const bytes = await save()
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
    await client.migration.writeSession([
      { name: target, offset: '0', data: bytes.subarray(0, 40) },
    ])
    const state = 'MIGRATION_STATE_RUNNING'
    const running = (writtenBytes: number) =>
      client.migration.setMigrationState({
        name: target,
        state,
        writtenBytes: String(writtenBytes),
      })

    await expect(running(STATE_BYTES)).rejects.toMatchObject({ reason: 'ARC_BLOCKED' })
    await expect(running(STATE_BYTES)).rejects.toThrow('its session has 40 bytes')
    await client.migration.writeSession([{ name: target, offset: '40', data: bytes.subarray(40) }])
    await running(STATE_BYTES)

    expect(await scratch(target)).toBe(0x5c)
  })

  test('loads nothing while a writer is at work: SESSION_BUSY', async () => {
    const bytes = await save()
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
    let goOn = () => {}
    const gate = new Promise<void>((resolve) => {
      goOn = resolve
    })
    const writing = client.migration.writeSession(
      (async function* () {
        yield { name: target, offset: '0', data: bytes.subarray(0, 40) }
        await gate
        yield { offset: '40', data: bytes.subarray(40) }
      })(),
    )
    await until(async () => {
      const { session } = await client.migration.getMigrationState({ name: target })
      return session?.bytes === '40' || undefined
    })

    await expect(setState(target, { state: 'MIGRATION_STATE_RUNNING' })).rejects.toMatchObject({
      reason: 'SESSION_BUSY',
    })
    goOn()
    await writing
    await setState(target, { state: 'MIGRATION_STATE_RUNNING' })
  })

  test('refuses a session that was never opened, a gap, and the ERROR state', async () => {
    await expect(read(source)).rejects.toMatchObject({ reason: 'NO_SUCH_SESSION' })
    await expect(
      client.migration.writeSession([{ name: target, offset: '0', data: Buffer.of(1) }]),
    ).rejects.toMatchObject({ reason: 'NO_SUCH_SESSION' })
    await setState(target, { state: 'MIGRATION_STATE_RESUMING' })
    await expect(
      client.migration.writeSession([{ name: target, offset: '8', data: Buffer.of(1) }]),
    ).rejects.toMatchObject({ reason: 'BAD_ARGUMENT' })
    await expect(setState(source, { state: 'MIGRATION_STATE_ERROR' })).rejects.toMatchObject({
      reason: 'ARC_BLOCKED',
    })
  })

  test('explains an arc that would have to leave the session: ARC_BLOCKED', async () => {
    await setState(source, { state: 'MIGRATION_STATE_STOP_COPY' })

    const refused = setState(source, { state: 'MIGRATION_STATE_PRE_COPY' })

    await expect(refused).rejects.toMatchObject({ reason: 'ARC_BLOCKED' })
    await expect(refused).rejects.toThrow(/set STOP or RUNNING first/)
  })
})
