/** The state of a device from a file. A device that refuses it is reset: nothing else is safe. */
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { Chunk, HEAD_ROOM } from '../base/chunk.ts'
import { LIMITS } from '../base/limits.ts'
import { RpcError } from '../client/rpc-error.ts'
import type { MigrationState__Output as MigrationState } from '../proto/vfiod/v1/MigrationState.ts'
import type { WriteSessionRequest } from '../proto/vfiod/v1/WriteSessionRequest.ts'
import type { BorrowedDevice } from './borrowed-device.ts'
import { CliError, fileError } from './failure.ts'
import { Progress } from './progress.ts'

export interface LoadedState {
  readonly device: string
  readonly file: string
  readonly bytes: string
  readonly sha256: string
  readonly state: MigrationState
}

export const loadState = async (borrowed: BorrowedDevice, file: string): Promise<LoadedState> => {
  const { client, name, signal } = borrowed
  const handle = await openFrom(file)
  const { size } = await handle.stat()
  const progress = new Progress({ label: 'loading', total: BigInt(size) })
  const hash = createHash('sha256')
  /** One buffer is enough: a message is on its way when the next one is asked for. */
  const requests = async function* (): AsyncGenerator<WriteSessionRequest | Chunk, void> {
    yield { name }
    const buffer = Buffer.allocUnsafeSlow(HEAD_ROOM + LIMITS.chunkBytes)
    for (let offset = 0n; ; ) {
      const length = await readInto(handle, { buffer, file })
      if (length === 0) return
      hash.update(buffer.subarray(HEAD_ROOM, HEAD_ROOM + length))
      yield new Chunk({ buffer, headRoom: HEAD_ROOM, length, offset })
      offset += BigInt(length)
      progress.add(length)
    }
  }
  try {
    await client.migration.setMigrationState(
      { name, state: 'MIGRATION_STATE_RESUMING' },
      { signal },
    )
    const { totalBytes } = await client.migration.writeSession(requests(), { signal })
    const { state } = await client.migration.setMigrationState(
      { name, state: 'MIGRATION_STATE_RUNNING' },
      { signal },
    )
    return { device: name, file, bytes: totalBytes, sha256: hash.digest('hex'), state }
  } catch (error) {
    throw await afterReset(borrowed, error)
  } finally {
    progress.stop()
    await handle.close()
  }
}

/** The error, and what became of the device. */
const afterReset = async ({ client, name }: BorrowedDevice, error: unknown): Promise<unknown> => {
  if (!(error instanceof RpcError) || error.reason === 'UNSUPPORTED') return error
  const note = await client.device.resetDevice({ name }).then(
    () => `vfioctl reset ${name}: it is RUNNING, with nothing of the file`,
    (failed: Error) => `${name} could not be reset: ${failed.message}`,
  )
  return new CliError(error.message, note, error)
}

const readInto = async (
  handle: FileHandle,
  { buffer, file }: { readonly buffer: Buffer; readonly file: string },
): Promise<number> => {
  try {
    return (await handle.read(buffer, HEAD_ROOM, LIMITS.chunkBytes)).bytesRead
  } catch (error) {
    throw fileError('read', file, error)
  }
}

const openFrom = async (path: string): Promise<FileHandle> => {
  try {
    return await open(path, 'r')
  } catch (error) {
    throw fileError('read', path, error)
  }
}
