/** A front in the process of the owner: for tests, where nothing has to be kept apart. */
import { Socket } from 'node:net'
import { LINK_MEMORY } from '../link/slots.ts'
import { SeqpacketConnection } from '../os/fd-passing.ts'
import { SOCK_SEQPACKET, SOCK_STREAM, socketPair } from '../os/unix-socket.ts'
import { Front } from './front.ts'

/** The ends of the owner; the front ends when one of them is closed, or with `kill`. */
export const startInside = (
  onExit: (how: string) => void,
): {
  readonly front: Front
  readonly memory: Buffer
  readonly frames: Socket
  readonly packets: SeqpacketConnection
  readonly uplink: SeqpacketConnection
  readonly kill: () => void
} => {
  const frames = socketPair(SOCK_STREAM)
  const [packets, uplink] = [socketPair(SOCK_SEQPACKET), socketPair(SOCK_SEQPACKET)]
  if (typeof frames === 'number' || typeof packets === 'number' || typeof uplink === 'number')
    throw new Error('Cannot start a front: no sockets')
  const memory = Buffer.alloc(LINK_MEMORY)
  const front = new Front({
    memory,
    frames: new Socket({ fd: frames[1] }),
    packets: new SeqpacketConnection(packets[1]),
    uplink: new SeqpacketConnection(uplink[1]),
    onEnd: () => onExit('it has ended'),
  })
  return {
    front,
    memory,
    frames: new Socket({ fd: frames[0] }),
    packets: new SeqpacketConnection(packets[0]),
    uplink: new SeqpacketConnection(uplink[0]),
    kill: () => front.end(),
  }
}
