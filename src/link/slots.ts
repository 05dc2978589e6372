/**
 * Large messages beside the frames: in memory that both ends have mapped, so that a mebibyte of device
 * state is copied once and not through a socket. Each direction has its slots; the end that
 * fills them keeps the books, and the other says when it has done with one.
 */

/** Room for a chunk of device state with its framing (LIMITS.chunkBytes). */
export const SLOT_BYTES = (1 << 20) + 4096

/** Slots of one direction. */
const SLOTS = 8

/** Messages below this go through the socket. */
const LARGE = 64 << 10

/** Bytes of the memory of a link: the slots of the owner, then those of the front. */
export const LINK_MEMORY = 2 * SLOTS * SLOT_BYTES

/** Where in that memory a direction begins. */
export const SLOTS_OF = { owner: 0, front: SLOTS * SLOT_BYTES } as const

/** The payload of a frame that says where a message lies: | slot u8 | length u32 |. */
const encodePlace = (slot: number, length: number): Buffer => {
  const payload = Buffer.allocUnsafe(5)
  payload.writeUInt8(slot)
  payload.writeUInt32LE(length, 1)
  return payload
}

export class SlotWriter {
  readonly #memory: Buffer
  readonly #free = new Set(Array.from({ length: SLOTS }, (_, slot) => slot))

  /** Over the slots of one direction. */
  constructor(memory: Buffer) {
    this.#memory = memory
  }

  /** Copies a message into a slot; the payload that says where, or undefined: send it as it is. */
  put(message: Buffer): Buffer | undefined {
    if (message.length < LARGE || message.length > SLOT_BYTES) return undefined
    const [slot] = this.#free
    if (slot === undefined) return undefined
    this.#free.delete(slot)
    message.copy(this.#memory, slot * SLOT_BYTES)
    return encodePlace(slot, message.length)
  }

  /** The other end has done with a slot; answers false where it was not in use. */
  release(slot: number): boolean {
    if (slot >= SLOTS || this.#free.has(slot)) return false
    this.#free.add(slot)
    return true
  }
}

/** The bytes that a payload of `encodePlace` names, and their slot; undefined where it is malformed. */
export const messageAt = (
  memory: Buffer,
  payload: Buffer,
): { readonly slot: number; readonly bytes: Buffer } | undefined => {
  if (payload.length !== 5) return undefined
  const slot = payload.readUInt8()
  const length = payload.readUInt32LE(1)
  if (slot >= SLOTS || length > SLOT_BYTES) return undefined
  return { slot, bytes: memory.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + length) }
}
