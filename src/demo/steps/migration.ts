/**
 * Step 5. The state of a device as a stream: read while it runs (PRE_COPY), finished while it is
 * stopped (STOP_COPY), written into another device (RESUMING), which then runs in its place.
 */
import { Mismatch } from '../narrator.ts'
import type { Stage } from '../stage.ts'

/** The scratch register of a 16550 serial port: a byte that only software changes. */
const SCRATCH = { region: 0, offset: '7' } as const
const SPACE = 'serial'
/** As small as a network might deliver it. */
const PIECE = 10

const readAll = async (
  { client }: Stage,
  name: string,
): Promise<{ readonly bytes: Buffer; readonly isComplete: boolean }> => {
  const pieces: Buffer[] = []
  let isComplete = false
  for await (const { data, end } of client.migration.readSession({ name })) {
    if (end) isComplete = end.complete
    else pieces.push(data)
  }
  return { bytes: Buffer.concat(pieces), isComplete }
}

const scratch = async ({ client }: Stage, name: string): Promise<number> => {
  const { data } = await client.device.readRegion({ name, ...SCRATCH, length: 1 })
  return data[0] ?? -1
}

const saved = async (stage: Stage, name: string): Promise<Buffer> => {
  const { client, tell } = stage
  await client.migration.setMigrationState({ name, state: 'MIGRATION_STATE_PRE_COPY' })
  const running = await readAll(stage, name)
  const left = await client.migration.getPrecopyInfo({ name })
  tell.say(`PRE_COPY: ${running.bytes.length} bytes read while the device runs`)
  tell.check(
    'nothing is left to read before it stops',
    [left.initialBytes, left.dirtyBytes, running.isComplete],
    ['0', '0', false],
  )
  await client.migration.setMigrationState({ name, state: 'MIGRATION_STATE_PRE_COPY_P2P' })
  await client.migration.setMigrationState({ name, state: 'MIGRATION_STATE_STOP_COPY' })
  const stopped = await readAll(stage, name)
  tell.say(`PRE_COPY_P2P, STOP_COPY: ${stopped.bytes.length} more bytes`)
  tell.check('the stream is complete', stopped.isComplete, true)
  return Buffer.concat([running.bytes, stopped.bytes])
}

const pieces = function* (name: string, bytes: Buffer) {
  for (let at = 0; at < bytes.length; at += PIECE)
    yield { name, offset: String(at), data: bytes.subarray(at, at + PIECE) }
}

export const migrate = async (stage: Stage): Promise<void> => {
  const { client, tell } = stage
  tell.step('Migrate: the state of one mtty device becomes that of another')
  const { devices } = await client.inventory.listDevices()
  const [source, target] = devices.filter(({ mdevType }) => mdevType === 'mtty-2')
  if (source === undefined || target === undefined)
    throw new Mismatch('the machine', {
      found: devices.map(({ name }) => name),
      expected: '2 mtty',
    })
  await client.addressSpace.createSpace({ spaceId: SPACE })
  for (const { groupId, name } of [source, target]) {
    await client.addressSpace.addGroup({ spaceId: SPACE, groupId })
    await client.device.openDevice({ spaceId: SPACE, name })
  }
  const can = await client.migration.getMigrationCapabilities({ name: source.name })
  tell.check('it has PRE_COPY and P2P', [can.preCopy, can.p2p], [true, true])
  await client.device.writeRegion({ name: source.name, ...SCRATCH, data: Buffer.of(0x5a) })
  await client.device.writeRegion({ name: target.name, ...SCRATCH, data: Buffer.of(0x11) })

  const bytes = await saved(stage, source.name)
  const name = target.name
  await client.migration.setMigrationState({ name, state: 'MIGRATION_STATE_RESUMING' })
  const { totalBytes } = await client.migration.writeSession(pieces(name, bytes))
  await client.migration.setMigrationState({ name, state: 'MIGRATION_STATE_RUNNING' })
  tell.say(`RESUMING, ${totalBytes} bytes in pieces of ${PIECE}, RUNNING on the other device`)
  tell.check('the scratch register came along', await scratch(stage, name), 0x5a)
  await client.migration.setMigrationState({ name, state: 'MIGRATION_STATE_STOP_COPY' })
  const { bytes: back } = await readAll(stage, name)
  tell.check('the other device yields the same bytes', back.equals(bytes), true)
  await client.addressSpace.destroySpace({ spaceId: SPACE })
}
