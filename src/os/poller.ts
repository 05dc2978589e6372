/**
 * Watches fds for readability: eventfds, pidfds, sockets. One epoll set; the event loop watches
 * the set. Handing each fd to the event loop instead would set O_NONBLOCK on it for everyone who
 * shares it, and abort the process for an fd that cannot be polled.
 *
 * Level-triggered: the callback is called again until it has drained the fd or unwatched it.
 */

import { ERRNO } from '../base/errno.ts'
import { bind, call, type PollHandle, pollEpollFd } from './async-call.ts'
import { O_CLOEXEC } from './libc.ts'

const epollCreate = bind('epoll_create1', 'int', ['int'])
const epollCtl = bind('epoll_ctl', 'int', ['int', 'int', 'int', 'void *'])
const epollWait = bind('epoll_wait', 'int', ['int', 'void *', 'int', 'int'])

const EPOLL_CTL_ADD = 1
const EPOLL_CTL_DEL = 2
const EPOLLIN = 1
const BATCH = 64

// eventpoll.h: struct epoll_event is packed on x86-64 only.
const isPacked = process.arch === 'x64'
const EVENT_SIZE = isPacked ? 12 : 16
const DATA_OFFSET = isPacked ? 4 : 8

interface Watch {
  readonly id: number
  readonly onReadable: () => void
}

const watchesByFd = new Map<number, Watch>()
/** By id, not by fd: an event of this batch may be for an fd that is closed and opened anew. */
const watchesById = new Map<number, Watch>()
let lastId = 0

/** Invariant: the handle is referenced from here for as long as the set exists; an unreferenced
 * handle would be collected and stop without a word. */
let set: { readonly fd: number; readonly handle: PollHandle } | undefined

let reportError = (error: unknown): void => {
  queueMicrotask(() => {
    throw error
  })
}

/** Receives what callbacks throw. Without a hook it is an uncaught exception. */
export const onError = (hook: (error: unknown) => void): void => {
  reportError = hook
}

const events = new DataView(new ArrayBuffer(BATCH * EVENT_SIZE))

const deliver = (epollFd: number): void => {
  const ready = call(epollWait, epollFd, new Uint8Array(events.buffer), BATCH, 0)
  const ids = Array.from({ length: Math.max(ready, 0) }, (_, index) =>
    events.getFloat64(index * EVENT_SIZE + DATA_OFFSET, true),
  )
  for (const id of ids) {
    try {
      watchesById.get(id)?.onReadable()
    } catch (error) {
      reportError(error)
    }
  }
}

const openSet = (): number => {
  if (set) return set.fd
  const fd = call(epollCreate, O_CLOEXEC)
  if (fd < 0) return fd
  let isDue = false
  // Not in koffi's own callback: from there Node 26 does not run the promises that it settles
  // until something else wakes the event loop.
  const onEvents = (): void => {
    if (isDue) return
    isDue = true
    setImmediate(() => {
      isDue = false
      deliver(fd)
    })
  }
  set = { fd, handle: pollEpollFd(fd, onEvents) }
  return fd
}

/**
 * Calls back whenever `fd` is readable, has hung up, or is in error. -EPERM for an fd that cannot
 * be polled, -EEXIST for one that is watched already. Unwatch an fd before closing it.
 */
export const watch = (fd: number, onReadable: () => void): number => {
  if (watchesByFd.has(fd)) return -ERRNO.EEXIST
  const epollFd = openSet()
  if (epollFd < 0) return epollFd
  lastId += 1
  const event = new DataView(new ArrayBuffer(EVENT_SIZE))
  event.setUint32(0, EPOLLIN, true)
  event.setFloat64(DATA_OFFSET, lastId, true)
  const added = call(epollCtl, epollFd, EPOLL_CTL_ADD, fd, new Uint8Array(event.buffer))
  if (added < 0) return added
  const watched = { id: lastId, onReadable }
  watchesByFd.set(fd, watched)
  watchesById.set(watched.id, watched)
  set?.handle.ref()
  return 0
}

/** -ENOENT for an fd that is not watched. */
export const unwatch = (fd: number): number => {
  const watched = watchesByFd.get(fd)
  if (!set || !watched) return -ERRNO.ENOENT
  watchesByFd.delete(fd)
  watchesById.delete(watched.id)
  if (watchesByFd.size === 0) set.handle.unref()
  return call(epollCtl, set.fd, EPOLL_CTL_DEL, fd, new Uint8Array(EVENT_SIZE))
}
