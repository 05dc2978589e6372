/** Where to listen: on sockets that the service manager passed in, or on files of our own. */
import type { ListenOn } from '../api/api.ts'
import { listenFds } from '../os/notify.ts'
import { socketOption } from '../os/unix-socket.ts'
import type { Config } from './config.ts'
import { groupNumber } from './names.ts'

const SO_TYPE = 3
const SOCK_STREAM = 1
const SOCK_SEQPACKET = 5

const typeOf = (fd: number): number => {
  const type = new Uint32Array(1)
  return socketOption(fd, SO_TYPE, new Uint8Array(type.buffer)) < 0 ? 0 : (type[0] ?? 0)
}

/** One unit file lists both sockets under one name, so their types tell them apart. */
const inherited = (type: number): number | undefined =>
  listenFds().find(({ fd }) => typeOf(fd) === type)?.fd

/** The group that may connect: its members operate, unless a policy says otherwise. */
export const socketGid = ({ socket_group: group }: Config): number | undefined =>
  group === undefined ? undefined : groupNumber(group)

const listenOn = (config: Config, path: string, type: number): ListenOn => {
  const inheritedFd = inherited(type)
  if (inheritedFd !== undefined) return { path, inheritedFd }
  return { path, mode: config.socket_mode, gid: socketGid(config) }
}

export const socketsOf = (config: Config): { socket: ListenOn; fdSocket: ListenOn } => ({
  socket: listenOn(config, config.socket, SOCK_STREAM),
  fdSocket: listenOn(config, config.fd_socket, SOCK_SEQPACKET),
})
