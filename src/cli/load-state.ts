/** The state of a device from a file. A device that refuses it is reset: nothing else is safe. */
import { createHash } from 'node:crypto'
import type { Chunk } from '../base/chunk.ts'
import { RpcError } from '../client/rpc-error.ts'
import type { MigrationState__Output as MigrationState } from '../proto/vfiod/v1/MigrationState.ts'
import type { Session__Output as Session } from '../proto/vfiod/v1/Session.ts'
import type { WriteSessionRequest } from '../proto/vfiod/v1/WriteSessionRequest.ts'
import type { BorrowedDevice } from './borrowed-device.ts'
import { CliError } from './failure.ts'
import { KeptInput } from './kept-input.ts'
import { Progress } from './progress.ts'
import { resumed } from './resumed.ts'
import { openInput } from './state-input.ts'

export interface LoadedState {
  readonly device: string
  readonly file: string
  readonly bytes: string
  readonly sha256: string
  readonly state: MigrationState
}

export const loadState = async (borrowed: BorrowedDevice, file: string): Promise<LoadedState> => {
  const { client, name, signal } = borrowed
  const input = await openInput(file)
  const progress = new Progress({ label: 'loading', total: BigInt(input.size) })
  const hash = createHash('sha256')
  let written = 0n
  const kept = new KeptInput(
    (into) => input.read(into),
    (data) => {
      hash.update(data)
      written += BigInt(data.length)
      progress.add(data.length)
    },
  )
  /** Goes on with the first byte that the device does not have. */
  const requests = async function* (
    session: Session | null,
  ): AsyncGenerator<WriteSessionRequest | Chunk, void> {
    const { sessionId = '0', bytes = '0' } = session ?? {}
    yield { name, sessionId, offset: bytes }
    yield* kept.from(BigInt(bytes))
  }
  try {
    await client.migration.setMigrationState(
      { name, state: 'MIGRATION_STATE_RESUMING' },
      { signal },
    )
    const { totalBytes } = await resumed(signal, async () => {
      const { session } = await client.migration.getMigrationState({ name }, { signal })
      return await client.migration.writeSession(requests(session), { signal })
    })
    const { state } = await client.migration.setMigrationState(
      { name, state: 'MIGRATION_STATE_RUNNING', writtenBytes: String(written) },
      { signal },
    )
    return { device: name, file, bytes: totalBytes, sha256: hash.digest('hex'), state }
  } catch (error) {
    throw await afterReset(borrowed, error)
  } finally {
    progress.stop()
    await input.close()
  }
}

/** The error, and what became of the device. */
const afterReset = async ({ client, name }: BorrowedDevice, error: unknown): Promise<unknown> => {
  if (!(error instanceof RpcError) || error.reason === 'UNSUPPORTED') return error
  const note = await client.device.resetDevice({ name }).then(
    () => `vfioctl reset ${name}: it is RUNNING, with nothing of the file`,
    (failed: Error) => `${name} could not be reset: ${failed.message}`,
  )
  return new CliError(error.message, { note, cause: error })
}
