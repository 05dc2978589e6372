/** The link to a front that is about to be started: the ends of the owner, and the fds of the front. */
import type { RunningFront } from '../api/transport/running-front.ts'
import { LINK_MEMORY } from '../link/slots.ts'
import { channelsOf, closeChannels, openChannels } from '../os/channels.ts'
import { sys } from '../os/libc.ts'
import { allocShared, freeSegment } from '../os/memory.ts'

export interface FrontEnds {
  readonly own: Omit<RunningFront, 'kill'>
  /** Of its channels (ChannelFds, in its order) and the memory; closed by `given`. */
  readonly fds: readonly number[]
  /** The front has its fds, or will have none. */
  given(): void
  /** The memory is used no more. */
  free(): void
  /** There will be no front. */
  discard(): void
}

/** Throws where the kernel gives no fds or no memory. */
export const makeFrontEnds = (): FrontEnds => {
  const memory = allocShared('vfiod-front', LINK_MEMORY)
  let made: ReturnType<typeof openChannels>
  try {
    made = openChannels()
  } catch (error) {
    sys.closeSync(memory.fd)
    freeSegment(memory.segment)
    throw error
  }
  const { incoming, outgoing, packets, uplink } = made.other
  const fds = [incoming, outgoing, packets, uplink, memory.fd]
  const view = memory.segment.bytes
  const own = {
    ...channelsOf(made.owner),
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
    closeChannels(own)
    free()
  }
  return { own, fds, given, free, discard }
}
