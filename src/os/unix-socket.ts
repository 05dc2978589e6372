/**
 * Unix sockets in bytes: addresses, and messages that carry fds (SCM_RIGHTS, unix(7)).
 *
 * A received fd is ours to close. It is closed off the event loop, because the last close of a
 * file calls into its file system, which may be the sender itself (FUSE).
 */

import { ERRNO } from '../base/errno.ts'
import { LIMITS } from '../base/limits.ts'
import { addressOf, bind, call } from './async-call.ts'
import { sys } from './libc.ts'
import { readProc } from './process.ts'

const socket = bind('socket', 'int', ['int', 'int', 'int'])
const bindTo = bind('bind', 'int', ['int', 'void *', 'unsigned int'])
const listen = bind('listen', 'int', ['int', 'int'])
const accept4 = bind('accept4', 'int', ['int', 'void *', 'void *', 'int'])
const connect = bind('connect', 'int', ['int', 'void *', 'unsigned int'])
const sendmsg = bind('sendmsg', 'long', ['int', 'void *', 'int'])
const recvmsg = bind('recvmsg', 'long', ['int', 'void *', 'int'])
const socketpair = bind('socketpair', 'int', ['int', 'int', 'int', 'void *'])
const shutdown = bind('shutdown', 'int', ['int', 'int'])
const getsockopt = bind('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *'])

export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_SEQPACKET = 5
const AF_UNIX = 1
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SHUT_WR = 1
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_CTRUNC = 0x8
const MSG_TRUNC = 0x20
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x40000000
const BACKLOG = 128

/** un.h: struct sockaddr_un. `@name` is an abstract address, anything else a path. */
const SUN_PATH_SIZE = 108
const addressBytes = (path: string): Uint8Array | number => {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : `${path}\0`)
  if (path === '' || name.length > SUN_PATH_SIZE) return -ERRNO.EINVAL
  return Buffer.concat([new Uint8Array(new Uint16Array([AF_UNIX]).buffer), name])
}

type SocketType = typeof SOCK_STREAM | typeof SOCK_DGRAM | typeof SOCK_SEQPACKET

const openSocket = (
  type: SocketType,
  path: string,
  use: (fd: number, address: Uint8Array) => number,
): number => {
  const address = addressBytes(path)
  if (typeof address === 'number') return address
  const fd = call(socket, AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
  if (fd < 0) return fd
  const answer = use(fd, address)
  if (answer < 0) sys.closeSync(fd)
  return answer < 0 ? answer : fd
}

/** A non-blocking socket connected to `path`, or -errno. */
export const connectUnix = (type: SocketType, path: string): number =>
  openSocket(type, path, (fd, address) => call(connect, fd, address, address.length))

/** A non-blocking socket that is reached at `path`, or -errno: -EADDRINUSE also for a stale file. */
export const listenUnix = (type: SocketType, path: string): number =>
  openSocket(type, path, (fd, address) => {
    const bound = call(bindTo, fd, address, address.length)
    return bound < 0 || type === SOCK_DGRAM ? bound : call(listen, fd, BACKLOG)
  })

/** The next connection, non-blocking; -EAGAIN when there is none. */
export const acceptUnix = (fd: number): number =>
  call(accept4, fd, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK)

/** Two sockets that are connected to each other, non-blocking, or -errno. */
export const socketPair = (
  type: typeof SOCK_STREAM | typeof SOCK_SEQPACKET,
): readonly [number, number] | number => {
  const pair = new Int32Array(2)
  const bytes = new Uint8Array(pair.buffer)
  const answer = call(socketpair, AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bytes)
  return answer < 0 ? answer : [pair[0] as number, pair[1] as number]
}

/** shutdown(2): the peer reads the end; what it sends still arrives. */
export const endWriting = (fd: number): number => call(shutdown, fd, SHUT_WR)

/** getsockopt(2) at SOL_SOCKET: the number of bytes filled in, or -errno. */
export const socketOption = (fd: number, option: number, into: Uint8Array): number => {
  const length = new Uint32Array([into.length])
  const answer = call(getsockopt, fd, SOL_SOCKET, option, into, length)
  return answer < 0 ? answer : (length[0] as number)
}

/** What SO_PEERGROUPS would need when the buffer was too small (-ERANGE). */
export const socketOptionLength = (fd: number, option: number): number => {
  const length = new Uint32Array([0])
  const answer = call(getsockopt, fd, SOL_SOCKET, option, new Uint8Array(4), length)
  return answer === -ERRNO.ERANGE || answer >= 0 ? (length[0] as number) : answer
}

// socket.h: struct msghdr (56 bytes), struct iovec (16), struct cmsghdr (16), all on LP64.
// They lie in one buffer with what they point to: one address, and koffi holds it for the call.
const IOVEC = 56
const CONTROL = IOVEC + 16
const CMSG_HEADER = 16
const CONTROL_SIZE = CMSG_HEADER + Math.ceil((LIMITS.fdsPerPacket * 4) / 8) * 8
const DATA = CONTROL + CONTROL_SIZE

/** The longest packet that is sent or received. */
export const PACKET_MAX = 65536

const frame = new Uint8Array(DATA + PACKET_MAX)
const fields = new DataView(frame.buffer)
const frameAddress = addressOf(frame)

const prepare = (dataLength: number, controlLength: number): void => {
  fields.setBigUint64(16, frameAddress + BigInt(IOVEC), true)
  fields.setBigUint64(24, 1n, true)
  fields.setBigUint64(32, controlLength > 0 ? frameAddress + BigInt(CONTROL) : 0n, true)
  fields.setBigUint64(40, BigInt(controlLength), true)
  fields.setBigUint64(IOVEC, frameAddress + BigInt(DATA), true)
  fields.setBigUint64(IOVEC + 8, BigInt(dataLength), true)
}

/** Sends one message without waiting; -EAGAIN when the receiver's queue is full. The fds stay
 * open on this side: the caller closes them. */
export const sendMessage = (fd: number, bytes: Uint8Array, fds: readonly number[] = []): number => {
  if (bytes.length > PACKET_MAX) return -ERRNO.EMSGSIZE
  if (fds.length > LIMITS.fdsPerPacket) return -ERRNO.EINVAL
  const controlUsed = CMSG_HEADER + fds.length * 4
  prepare(bytes.length, fds.length > 0 ? controlUsed : 0)
  frame.set(bytes, DATA)
  fields.setBigUint64(CONTROL, BigInt(controlUsed), true)
  fields.setInt32(CONTROL + 8, SOL_SOCKET, true)
  fields.setInt32(CONTROL + 12, SCM_RIGHTS, true)
  for (const [index, passed] of fds.entries())
    fields.setInt32(CONTROL + CMSG_HEADER + index * 4, passed, true)
  return call(sendmsg, fd, frame, MSG_DONTWAIT | MSG_NOSIGNAL)
}

export interface Message {
  readonly bytes: Uint8Array
  /** Close-on-exec; the receiver's to close. */
  readonly fds: number[]
  /** Part of the bytes or of the fds did not fit and is lost. */
  readonly isTruncated: boolean
}

/** Takes one message without waiting; -EAGAIN when there is none. */
export const receiveMessage = (
  fd: number,
  room: { readonly dataMax?: number; readonly fdsMax?: number } = {},
): Message | number => {
  const { dataMax = PACKET_MAX, fdsMax = LIMITS.fdsPerPacket } = room
  prepare(dataMax, CMSG_HEADER + fdsMax * 4)
  const length = call(recvmsg, fd, frame, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
  if (length < 0) return length
  const flags = fields.getInt32(48, true)
  return {
    bytes: frame.slice(DATA, DATA + length),
    fds: receivedFds(Number(fields.getBigUint64(40, true))),
    isTruncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0,
  }
}

const receivedFds = (controlLength: number): number[] => {
  const fds: number[] = []
  for (let at = CONTROL; at + CMSG_HEADER <= CONTROL + controlLength; ) {
    const length = Number(fields.getBigUint64(at, true))
    if (length < CMSG_HEADER) break
    const isRights =
      fields.getInt32(at + 8, true) === SOL_SOCKET && fields.getInt32(at + 12, true) === SCM_RIGHTS
    for (let fd = at + CMSG_HEADER; isRights && fd + 4 <= at + length; fd += 4)
      fds.push(fields.getInt32(fd, true))
    at += Math.ceil(length / 8) * 8
  }
  return fds
}

const SHUT_RDWR = 2

/** shutdown(2) of both directions: a Unix peer sends nothing more, fds included. */
export const shutdownSocket = (fd: number): number => call(shutdown, fd, SHUT_RDWR)

/**
 * Fds that were sent to a Unix socket and not taken (scm_fds of its fdinfo, Linux 5.5); 0 for any other
 * socket, -errno where that cannot be read.
 */
export const untakenFds = (fd: number): number => {
  const info = readProc(`/proc/self/fdinfo/${fd}`)
  return typeof info === 'number' ? info : Number(/^scm_fds:\s*(\d+)$/m.exec(info)?.[1] ?? 0)
}

const FIONREAD = 0x541b

/** Whether a stream has bytes that were not read. Fds come with bytes: one without has none. */
export const hasUnread = (fd: number): boolean => {
  const count = new Int32Array(1)
  const answer = sys.ioctlSync(fd, FIONREAD, new Uint8Array(count.buffer))
  return answer !== 0 || count[0] !== 0
}

/** Closes received fds; done when all are closed. */
export const closeAll = async (fds: readonly number[]): Promise<void> => {
  await Promise.all(fds.map((fd) => sys.close(fd)))
}
