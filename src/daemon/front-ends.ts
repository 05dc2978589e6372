/** The link to a front that is about to be started: the ends of the owner, and the fds of the front. */
import { Socket } from 'node:net'
import type { RunningFront } from '../api/transport/fronts.ts'
import { errnoName } from '../base/errno.ts'
import { LINK_MEMORY } from '../link/slots.ts'
import { SeqpacketConnection } from '../os/fd-passing.ts'
import { sys } from '../os/libc.ts'
import { allocShared, freeSegment } from '../os/memory.ts'
import { SOCK_SEQPACKET, SOCK_STREAM, socketPair } from '../os/unix-socket.ts'

export interface FrontEnds {
  readonly own: Omit<RunningFront, 'kill'>
  /** Frames, packets, uplink, memory, in this order; closed by `given`. */
  readonly fds: readonly number[]
  /** The front has its fds, or will have none. */
  given(): void
  /** The memory is used no more. */
  free(): void
  /** There will be no front. */
  discard(): void
}

const pairs = (): [number, number][] => {
  const made: [number, number][] = []
  for (const type of [SOCK_STREAM, SOCK_SEQPACKET, SOCK_SEQPACKET] as const) {
    const pair = socketPair(type)
    if (typeof pair === 'number') {
      for (const fd of made.flat()) sys.closeSync(fd)
      throw new Error(`Cannot start a front: no sockets (${errnoName(-pair)})`)
    }
    made.push([...pair])
  }
  return made
}

/** Throws where the kernel gives no sockets or no memory. */
export const makeFrontEnds = (): FrontEnds => {
  const memory = allocShared('vfiod-front', LINK_MEMORY)
  let made: [number, number][]
  try {
    made = pairs()
  } catch (error) {
    sys.closeSync(memory.fd)
    freeSegment(memory.segment)
    throw error
  }
  const [frames, packets, uplink] = made.map(([own]) => own) as [number, number, number]
  const fds = [...made.map(([, its]) => its), memory.fd]
  const view = memory.segment.bytes
  const own = {
    frames: new Socket({ fd: frames }),
    packets: new SeqpacketConnection(packets),
    uplink: new SeqpacketConnection(uplink),
    memory: Buffer.from(view.buffer, view.byteOffset, LINK_MEMORY),
  }
  let isFreed = false
  const given = (): void => {
    for (const fd of fds) sys.closeSync(fd)
  }
  const free = (): void => {
    if (!isFreed) freeSegment(memory.segment)
    isFreed = true
  }
  const discard = (): void => {
    given()
    own.frames.destroy()
    own.packets.close()
    own.uplink.close()
    free()
  }
  return { own, fds, given, free, discard }
}
