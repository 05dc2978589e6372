/** The state of a device into a file, by the way that stops the device for the shortest time. */
import { RpcError } from '../client/rpc-error.ts'
import type { MigrationState__Output as MigrationState } from '../proto/vfiod/v1/MigrationState.ts'
import type { BorrowedDevice } from './borrowed-device.ts'
import { CliError } from './failure.ts'
import { Progress } from './progress.ts'
import { resumed } from './resumed.ts'
import { type OutputOptions, StateOutput } from './state-output.ts'

/** A device that is written faster than it is read never runs out: it is stopped after so many. */
const PRECOPY_ROUNDS = 16

export interface SavedState {
  readonly device: string
  readonly file: string
  /** The states that were set, in order. */
  readonly path: readonly MigrationState[]
  /** What was read while the device ran. */
  readonly precopyBytes: number
  readonly bytes: number
  readonly sha256: string
}

class Saving {
  readonly path: MigrationState[] = []
  /** The session that is read, from the answer that opened it. */
  #sessionId = '0'
  readonly #borrowed: BorrowedDevice
  readonly #file: StateOutput
  readonly #progress: Progress

  constructor(borrowed: BorrowedDevice, file: StateOutput, progress: Progress) {
    this.#borrowed = borrowed
    this.#file = file
    this.#progress = progress
  }

  async set(state: MigrationState): Promise<void> {
    const { client, name, signal } = this.#borrowed
    const { session } = await client.migration.setMigrationState({ name, state }, { signal })
    this.#sessionId = session?.sessionId ?? '0'
    this.path.push(state)
  }

  /** Reads until there is no more for the time being; answers whether it was the end. */
  read(): Promise<boolean> {
    return resumed(this.#borrowed.signal, () => this.#readOn())
  }

  /** Goes on with the first byte that the file does not have. */
  async #readOn(): Promise<boolean> {
    const { client, name, signal } = this.#borrowed
    const request = { name, sessionId: this.#sessionId, fromOffset: String(this.#file.bytes) }
    let isComplete = false
    for await (const { data, end } of client.migration.readSession(request, { signal })) {
      if (end) isComplete = end.complete
      if (data.length === 0) continue
      await this.#file.append(data)
      this.#progress.add(data.length)
    }
    return isComplete
  }

  async precopy(): Promise<void> {
    const { client, name, signal } = this.#borrowed
    for (let round = 0; round < PRECOPY_ROUNDS; round += 1) {
      await this.read()
      const left = await client.migration.getPrecopyInfo({ name }, { signal })
      if (left.initialBytes === '0' && left.dirtyBytes === '0') return
    }
  }
}

export const saveState = async (
  borrowed: BorrowedDevice,
  options: OutputOptions,
): Promise<SavedState> => {
  const total = await estimate(borrowed)
  const file = await StateOutput.open(options)
  const progress = new Progress({ label: 'saving', total })
  try {
    const saving = new Saving(borrowed, file, progress)
    const precopyBytes = await saveAll(saving, file, borrowed)
    await file.keep()
    const { bytes, sha256 } = file
    return {
      device: borrowed.name,
      file: options.path,
      path: saving.path,
      precopyBytes,
      bytes,
      sha256,
    }
  } catch (error) {
    await file.discard()
    throw error
  } finally {
    progress.stop()
  }
}

/** Answers how many bytes were read while the device ran. */
const saveAll = async (
  saving: Saving,
  file: StateOutput,
  { client, name, signal }: BorrowedDevice,
): Promise<number> => {
  const { preCopy, p2p } = await client.migration.getMigrationCapabilities({ name }, { signal })
  if (preCopy) {
    await saving.set('MIGRATION_STATE_PRE_COPY')
    await saving.precopy()
  }
  const precopyBytes = file.bytes
  if (p2p) await saving.set(`MIGRATION_STATE_${preCopy ? 'PRE_COPY' : 'RUNNING'}_P2P`)
  await saving.set('MIGRATION_STATE_STOP_COPY')
  if (!(await saving.read()))
    throw new CliError(`Cannot save ${name}: the stream ended before the state was complete`)
  await saving.set('MIGRATION_STATE_STOP')
  return precopyBytes
}

/** For the progress bar alone, so a device that cannot say is fine. */
const estimate = async ({ client, name, signal }: BorrowedDevice): Promise<bigint> => {
  try {
    const { stopCopyBytes } = await client.migration.estimateSize({ name }, { signal })
    return BigInt(stopCopyBytes)
  } catch (error) {
    if (error instanceof RpcError && error.reason === 'UNSUPPORTED') return 0n
    throw error
  }
}
