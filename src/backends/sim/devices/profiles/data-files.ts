/** The data_fds of vendor-like devices: what a session sends, and what one receives. */

import { struct } from '../../../../abi/layout.ts'
import { VFIO_MIG_GET_PRECOPY_INFO, vfio_precopy_info } from '../../../../abi/mig-v2.ts'
import { ERRNO } from '../../../../base/errno.ts'
import type { IoctlArg } from '../../../../kernel/port.ts'
import type { MigState } from '../../../../rules/mig-arcs.ts'
import { copyIn, copyOut } from '../../core/user-memory.ts'
import type { Caller } from '../../file/open-file.ts'
import type { V2Profile } from '../../spec/profile.ts'
import { DataFile } from '../../vfio/data-file.ts'
import type { StateImage } from './image.ts'
import { RECORD_SIZE, ReceivedState } from './records.ts'
import type { SaveQueue } from './save-queue.ts'

/** What tells a target early that the source is of another make. */
const MATCH = struct('vendor_match', { magic: 'u64', version: 'u32', pages: 'u32' })
const MAGIC = 0xfeed_cafe_dead_beefn
export const MATCH_SIZE = MATCH.size

const matchOf = ({ pages }: StateImage): Uint8Array =>
  MATCH.encode({ magic: MAGIC, version: 1, pages })

export interface DataFileParts {
  readonly profile: V2Profile
  readonly image: StateImage
  readonly state: () => MigState
}

export class SavingFile extends DataFile {
  readonly #parts: DataFileParts
  readonly queue: SaveQueue
  readonly #record = Buffer.alloc(RECORD_SIZE)
  /** What is left of the record that is being read. */
  #rest: Uint8Array = new Uint8Array(0)
  #isRestInitial = true

  constructor(parts: DataFileParts, queue: SaveQueue) {
    super()
    this.#parts = parts
    this.queue = queue
    if (parts.profile.preCopy === 'match') this.#rest = matchOf(parts.image)
  }

  get bytes(): number {
    return this.#rest.length + this.queue.bytes
  }

  override read(into: Uint8Array): number {
    if (this.isOrphan) return -ERRNO.ENODEV
    let done = 0
    while (done < into.length) {
      if (this.#rest.length === 0 && !this.#next()) break
      const piece = this.#rest.subarray(0, into.length - done)
      into.set(piece, done)
      this.#rest = this.#rest.subarray(piece.length)
      done += piece.length
    }
    if (done > 0 || into.length === 0 || this.#parts.state() === 'STOP_COPY') return done
    return this.#parts.profile.whenEmpty
  }

  override ioctl(_caller: Caller, request: number, arg: IoctlArg): number {
    if (request !== VFIO_MIG_GET_PRECOPY_INFO.number) return -ERRNO.ENOTTY
    if (this.#parts.profile.preCopy === 'none') return -ERRNO.ENOTTY
    const info = copyIn(vfio_precopy_info, arg, vfio_precopy_info.size)
    if (info === undefined) return -ERRNO.EFAULT
    if (info.argsz < vfio_precopy_info.size) return -ERRNO.EINVAL
    const state = this.#parts.state()
    const isAsked =
      state === 'PRE_COPY' || (state === 'PRE_COPY_P2P' && this.#parts.profile.infoInP2p)
    if (!isAsked) return -ERRNO.EINVAL
    if (this.isOrphan) return -ERRNO.ENODEV
    const initial = this.queue.initialBytes + (this.#isRestInitial ? this.#rest.length : 0)
    const dirty = this.queue.dirtyBytes + (this.#isRestInitial ? 0 : this.#rest.length)
    const counts = { initial_bytes: BigInt(initial), dirty_bytes: BigInt(dirty) }
    return copyOut(arg, vfio_precopy_info.encode({ ...info, ...counts }))
  }

  #next(): boolean {
    this.#isRestInitial = this.queue.initialBytes > 0
    if (!this.queue.next(this.#record)) return false
    this.#rest = this.#record
    return true
  }
}

export class ResumingFile extends DataFile {
  readonly #parts: DataFileParts
  readonly #received: ReceivedState
  readonly #match = Buffer.alloc(MATCH_SIZE)
  #matchLeft: number
  /** The errno of the first refusal. */
  #failure = 0

  constructor(parts: DataFileParts) {
    super()
    this.#parts = parts
    this.#received = new ReceivedState(parts.image)
    this.#matchLeft = parts.profile.preCopy === 'match' ? MATCH_SIZE : 0
  }

  override write(from: Uint8Array): number {
    if (this.isOrphan) return -ERRNO.ENODEV
    const checksAtWrite = this.#parts.profile.checks === 'at-write'
    // Of a stream that was refused nothing more is taken.
    if (checksAtWrite && this.#failure < 0) return -ERRNO.ENODEV
    const match = from.subarray(0, this.#matchLeft)
    this.#match.set(match, MATCH_SIZE - this.#matchLeft)
    this.#matchLeft -= match.length
    const hasMatch = match.length > 0 && this.#matchLeft === 0
    if (hasMatch && !this.#match.equals(matchOf(this.#parts.image))) {
      this.#failure = -ERRNO.EINVAL
      return this.#failure
    }
    if (this.#failure === 0) this.#failure = this.#received.take(from.subarray(match.length))
    const isRefusedNow = checksAtWrite || this.#failure === -ERRNO.ENOMEM
    return this.#failure < 0 && isRefusedNow ? this.#failure : from.length
  }

  /** The registers that came with the state, once it is the device's; undefined if it is not whole. */
  load(): Uint8Array | undefined {
    return this.#failure === 0 && this.#matchLeft === 0 ? this.#received.load() : undefined
  }
}
