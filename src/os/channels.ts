/**
 * What connects two processes of which one trusts the other with nothing. Bytes go by a pipe each way: it
 * carries no fds, while a socket drops those that were sent and not taken, in the thread that reads or closes
 * it, and that may sleep. Fds go by packets, on a socket for each direction.
 */
import { Socket } from 'node:net'
import { errnoName } from '../base/errno.ts'
import { bind, call } from './async-call.ts'
import { SeqpacketConnection } from './fd-passing.ts'
import { O_CLOEXEC, O_NONBLOCK, sys } from './libc.ts'
import { SOCK_SEQPACKET, socketPair } from './unix-socket.ts'

const pipe2 = bind('pipe2', 'int', ['void *', 'int'])

const F_SETPIPE_SZ = 1031

/** What the kernel lets any user have (fs.pipe-max-size). */
const PIPE_BYTES = 1 << 20

/** One end, as fds. */
export interface ChannelFds {
  readonly incoming: number
  readonly outgoing: number
  /** Packets from the owner, with fds. */
  readonly packets: number
  /** Packets to the owner, with fds. */
  readonly uplink: number
}

/** One end, in use. */
export interface Channels {
  readonly incoming: Socket
  readonly outgoing: Socket
  readonly packets: SeqpacketConnection
  readonly uplink: SeqpacketConnection
}

type Pair = readonly [number, number]

/** Its read end and its write end, non-blocking, or -errno. */
const pipe = (): Pair | number => {
  const ends = new Int32Array(2)
  const answer = call(pipe2, new Uint8Array(ends.buffer), O_CLOEXEC | O_NONBLOCK)
  if (answer < 0) return answer
  const [read, write] = ends as unknown as Pair
  // Where it may not be larger it is smaller.
  sys.fcntl(write, F_SETPIPE_SZ, PIPE_BYTES)
  return [read, write]
}

/** Both ends; throws where the system has no fds left. */
export const openChannels = (): { readonly owner: ChannelFds; readonly other: ChannelFds } => {
  const made: Pair[] = []
  const take = (pair: Pair | number): Pair => {
    if (typeof pair !== 'number') {
      made.push(pair)
      return pair
    }
    for (const fd of made.flat()) sys.closeSync(fd)
    throw new Error(`Cannot connect a process: ${errnoName(-pair)}`)
  }
  const [down, up] = [take(pipe()), take(pipe())]
  const [packets, uplink] = [take(socketPair(SOCK_SEQPACKET)), take(socketPair(SOCK_SEQPACKET))]
  return {
    owner: { incoming: up[0], outgoing: down[1], packets: packets[0], uplink: uplink[0] },
    other: { incoming: down[0], outgoing: up[1], packets: packets[1], uplink: uplink[1] },
  }
}

/** The fds belong to what is made of them. */
export const channelsOf = ({ incoming, outgoing, packets, uplink }: ChannelFds): Channels => ({
  incoming: new Socket({ fd: incoming, readable: true, writable: false }),
  outgoing: new Socket({ fd: outgoing, readable: false, writable: true }),
  packets: new SeqpacketConnection(packets),
  uplink: new SeqpacketConnection(uplink),
})

/** Where the other end has sent no fds, or is trusted. */
export const closeChannels = ({ incoming, outgoing, packets, uplink }: Channels): void => {
  incoming.destroy()
  outgoing.destroy()
  packets.close()
  uplink.close()
}
