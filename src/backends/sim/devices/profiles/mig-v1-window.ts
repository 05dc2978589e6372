/**
 * The data section of a migration region, and the transactions that move bytes through it. Saving:
 * pending_bytes opens one, data_offset prepares a chunk, data_size tells its length, and the next
 * pending_bytes acknowledges it. Resuming: bytes to data_offset, then data_size takes them.
 */

import { vfio_device_migration_info } from '../../../../abi/mig-v1.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { MapRequest } from '../../../../kernel/port.ts'
import type { Segment } from '../../../../os/memory.ts'
import { MappableBytes } from '../shared-pages.ts'
import type { Engine } from './engine.ts'
import type { StateImage } from './image.ts'
import { RECORD_SIZE, ReceivedState } from './records.ts'
import { SaveQueue } from './save-queue.ts'

const RECORDS_PER_CHUNK = 15
const WINDOW_SIZE = 0x1_0000
const FIRST_OFFSET = 0x1000

export const MIG_V1_WINDOW = {
  regionSize: FIRST_OFFSET + 2 * WINDOW_SIZE,
  /** What may be mapped: all but the page with the registers. */
  data: { offset: FIRST_OFFSET, size: 2 * WINDOW_SIZE },
  chunkMax: RECORDS_PER_CHUNK * RECORD_SIZE,
} as const

const AT = vfio_device_migration_info.offsets
const INVALID = BigInt(-ERRNO.EINVAL)
const SAVING = 2
const RESUMING = 4

export class MigV1Window {
  readonly #image: StateImage
  readonly #engine: Engine
  /** Both places, and what others map of them. */
  readonly #data = new MappableBytes(2 * WINDOW_SIZE)
  /** Two places that take turns: data_offset may differ from one transaction to the next. */
  #turn = 0
  #queue: SaveQueue | undefined
  #received: ReceivedState | undefined
  #isWrong = false
  /** How far the transaction is. */
  #step: 'none' | 'pending' | 'offset' | 'size' = 'none'
  #length = 0

  constructor(image: StateImage, engine: Engine) {
    this.#image = image
    this.#engine = engine
  }

  clear(): void {
    this.endSaving()
    this.#endInput()
  }

  endSaving(): void {
    this.#queue?.end()
    this.#queue = undefined
    this.#step = 'none'
    this.#length = 0
  }

  openPreCopy(): void {
    this.endSaving()
    this.#queue = new SaveQueue(this.#image, 0)
    this.#queue.addAll()
  }

  /** The device has stopped: what is left of the pre-copy, or all of it where there was none. */
  capture(): void {
    if (this.#queue === undefined) this.openPreCopy()
    this.#queue?.finish(this.#engine.saved())
  }

  openInput(): void {
    this.clear()
    this.#received = new ReceivedState(this.#image)
  }

  load(): boolean {
    const registers = this.#isWrong ? undefined : this.#received?.load()
    this.#endInput()
    if (registers === undefined) return false
    this.#engine.load(registers)
    return true
  }

  /** pending_bytes, data_offset or data_size, or -errno: out of order they are refused. */
  register(at: number, state: number): bigint {
    const isSaving = (state & SAVING) !== 0 && state !== (SAVING | RESUMING)
    switch (at) {
      case AT.pending_bytes:
        return isSaving ? this.#pending() : 0n
      case AT.data_offset:
        if (state === RESUMING) {
          this.#step = 'offset'
          return this.#offset
        }
        return isSaving ? this.#prepare() : INVALID
      case AT.data_size:
        if (!isSaving || (this.#step !== 'offset' && this.#step !== 'size')) return INVALID
        this.#step = 'size'
        return BigInt(this.#length)
      default:
        return INVALID
    }
  }

  read(into: Uint8Array, offset: number): number {
    if (this.#step !== 'size') return -ERRNO.EINVAL
    const from = offset - Number(this.#offset)
    if (from < 0 || from + into.length > this.#length) return -ERRNO.EINVAL
    into.set(this.#bytes.subarray(from, from + into.length))
    return into.length
  }

  write(from: Uint8Array, offset: number): number {
    const at = offset - Number(this.#offset)
    if (this.#step !== 'offset' || at < 0 || at + from.length > WINDOW_SIZE) return -ERRNO.EINVAL
    this.#bytes.set(from, at)
    return from.length
  }

  /** Maps whole pages of the data section; the registers before it stay trapped. */
  map(request: MapRequest): Promise<Segment | number> | number {
    return this.#data.map({ ...request, offset: request.offset - BigInt(FIRST_OFFSET) })
  }

  /** data_size is written: the chunk is taken. Chunks are records, which are not cut elsewhere. */
  take(size: bigint): number {
    if (this.#step !== 'offset' || size > BigInt(MIG_V1_WINDOW.chunkMax)) return -ERRNO.EINVAL
    const length = Number(size)
    const isWhole = length % RECORD_SIZE === 0
    const taken = this.#received?.take(this.#bytes.subarray(0, length)) ?? -ERRNO.EINVAL
    if (!isWhole || taken < 0) this.#isWrong = true
    this.#nextTurn()
    return 0
  }

  /** The place whose turn it is. */
  get #bytes(): Uint8Array {
    return this.#data.bytes.subarray(this.#turn * WINDOW_SIZE, (this.#turn + 1) * WINDOW_SIZE)
  }

  #endInput(): void {
    this.#received = undefined
    this.#isWrong = false
    this.#step = 'none'
  }

  #pending(): bigint {
    // The chunk before is acknowledged; asking again changes nothing.
    if (this.#step === 'offset' || this.#step === 'size') this.#nextTurn()
    this.#step = 'pending'
    return BigInt(this.#queue?.bytes ?? 0)
  }

  #prepare(): bigint {
    if (this.#step === 'none') return INVALID
    if (this.#step === 'pending') {
      this.#length = 0
      while (
        this.#length < MIG_V1_WINDOW.chunkMax &&
        this.#queue?.next(this.#bytes.subarray(this.#length, this.#length + RECORD_SIZE))
      )
        this.#length += RECORD_SIZE
      this.#step = 'offset'
    }
    return this.#offset
  }

  #nextTurn(): void {
    this.#turn = 1 - this.#turn
    this.#length = 0
    this.#step = 'none'
  }

  get #offset(): bigint {
    return BigInt(FIRST_OFFSET + this.#turn * WINDOW_SIZE)
  }
}
