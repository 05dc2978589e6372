/**
 * Pieces of this process's memory that are read and written although a client may cut the file behind
 * them at any moment (ftruncate, a full tmpfs, huge pages that ran out): an access to what is gone
 * fails, where a load or a store would be a SIGBUS. The kernel makes the copy, between the memory
 * and a file of ours, and answers -EFAULT for the part that is not there; looking first would race.
 */

import { sys } from './libc.ts'
import { allocShared, bytesAt, mayVanish, type SharedMemory } from './memory.ts'

export interface MemoryPiece {
  readonly length: number
  /** Fills `into`, which is as long; false where some of it is gone. */
  read(into: Uint8Array): boolean
  /** Writes `from`, which is as long; false where some of it is gone, or may only be read. */
  write(from: Uint8Array): boolean
}

/** The memory at an address, if it lies wholly inside one segment. */
export const pieceAt = (address: bigint, length: number): MemoryPiece | undefined => {
  const isUnsure = mayVanish(address, length)
  if (isUnsure === undefined) return undefined
  if (isUnsure) return new UnsurePiece(Number(address), length)
  const bytes = bytesAt(address, length)
  return bytes && new SurePiece(bytes)
}

/** The memory at an address that need not be a segment. */
export const unsurePiece = (address: number, length: number): MemoryPiece =>
  new UnsurePiece(address, length)

/** Memory that stays for as long as it is mapped. */
export class SurePiece implements MemoryPiece {
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get length(): number {
    return this.#bytes.length
  }

  read(into: Uint8Array): boolean {
    into.set(this.#bytes)
    return true
  }

  write(from: Uint8Array): boolean {
    this.#bytes.set(from)
    return true
  }
}

const STAGE_BYTES = 0x1_0000

let stage: SharedMemory | undefined
/** Where copies pass through: a memfd that no other process has. */
const theStage = (): SharedMemory => {
  stage ??= allocShared('vfiod-copies', STAGE_BYTES)
  return stage
}

class UnsurePiece implements MemoryPiece {
  readonly #address: number
  readonly length: number

  constructor(address: number, length: number) {
    this.#address = address
    this.length = length
  }

  read(into: Uint8Array): boolean {
    const { fd, segment } = theStage()
    for (let done = 0; done < into.length; done += STAGE_BYTES) {
      const length = Math.min(STAGE_BYTES, into.length - done)
      if (sys.pwriteFrom(fd, this.#address + done, length) !== length) return false
      into.set(segment.view(0, length), done)
    }
    return true
  }

  write(from: Uint8Array): boolean {
    const { fd, segment } = theStage()
    for (let done = 0; done < from.length; done += STAGE_BYTES) {
      const part = from.subarray(done, done + STAGE_BYTES)
      segment.view(0, part.length).set(part)
      if (sys.preadTo(fd, this.#address + done, part.length) !== part.length) return false
    }
    return true
  }
}

/** Whether every page from there on is still there, or may be had: what is cut is cut to the end. */
export const isThere = (address: bigint, length: number): boolean => {
  const isUnsure = mayVanish(address, length)
  if (!isUnsure) return isUnsure === false
  return new UnsurePiece(Number(address) + length - 1, 1).read(new Uint8Array(1))
}
