/** A front's end of its link to the owner. */
import { FrameWriter } from '../link/frame-writer.ts'
import { FROM_FRONT, FROM_OWNER, type Frame, FrameReader } from '../link/frames.ts'
import { messageAt, SLOTS_OF, SlotWriter } from '../link/slots.ts'
import type { Channels } from '../os/channels.ts'

const EMPTY = Buffer.alloc(0)

const NO_CALL: CallId = { connection: 0, call: 0 }

type Kind = (typeof FROM_FRONT)[keyof typeof FROM_FRONT]

/** A call, by the numbers that frames have for it. */
export interface CallId {
  readonly connection: number
  readonly call: number
}

export class OwnerLink {
  readonly #channels: Pick<Channels, 'incoming' | 'outgoing'>
  readonly #writer: FrameWriter

  readonly #isOpen: (connection: number) => boolean
  readonly #ownSlots: SlotWriter
  readonly #ownerSlots: Buffer

  constructor(
    channels: Pick<Channels, 'incoming' | 'outgoing'>,
    parts: {
      /** Memory for large messages, LINK_MEMORY bytes. */
      readonly memory: Buffer
      readonly take: (frame: Frame) => void
      /** Of a connection that is closed the owner hears nothing more. */
      readonly isOpen: (connection: number) => boolean
      /** Called when the owner is gone. */
      readonly onEnd: () => void
    },
  ) {
    this.#channels = channels
    this.#writer = new FrameWriter(channels.outgoing)
    this.#isOpen = parts.isOpen
    this.#ownerSlots = parts.memory.subarray(SLOTS_OF.owner, SLOTS_OF.front)
    this.#ownSlots = new SlotWriter(parts.memory.subarray(SLOTS_OF.front))
    const reader = new FrameReader(FROM_OWNER, (frame) => {
      if (frame.kind === FROM_OWNER.slotFree) this.#ownSlots.release(frame.payload.readUInt8())
      else if (frame.kind === FROM_OWNER.ping) this.#writer.write(FROM_FRONT.pong, NO_CALL)
      else parts.take(frame)
    })
    channels.incoming.on('data', (bytes) => reader.push(bytes))
    for (const pipe of [channels.incoming, channels.outgoing]) {
      pipe.on('error', () => {})
      pipe.on('close', parts.onEnd)
    }
  }

  /** A message that the owner has put into a slot; `free` gives the slot back. */
  messageAt(payload: Buffer): { readonly bytes: Buffer; readonly free: () => void } {
    const found = messageAt(this.#ownerSlots, payload)
    if (found === undefined) throw new Error('a message lies in no slot')
    const { bytes, slot } = found
    return { bytes, free: () => this.#writer.write(FROM_FRONT.slotFree, NO_CALL, Buffer.of(slot)) }
  }

  /** One message of a client stream. */
  sendMessage(id: CallId, message: Buffer): void {
    const place = this.#isOpen(id.connection) ? this.#ownSlots.put(message) : undefined
    if (place === undefined) this.send(FROM_FRONT.message, id, message)
    else this.send(FROM_FRONT.messageAt, id, place)
  }

  send(kind: Kind, id: CallId, payload: Buffer = EMPTY): void {
    if (this.#isOpen(id.connection)) this.#writer.write(kind, id, payload)
  }

  close(): void {
    this.#channels.incoming.destroy()
    this.#channels.outgoing.destroy()
  }
}
