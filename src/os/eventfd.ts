/**
 * Event counters. None of these calls sleeps, and none sets O_NONBLOCK: the counter may be shared
 * with a client that blocks on it.
 */

import { readlinkSync } from 'node:fs'
import { ERRNO } from '../base/errno.ts'
import { addressOf, bind, call } from './async-call.ts'
import { O_CLOEXEC, POLLIN, POLLOUT, pendingEvents, sys } from './libc.ts'

const eventfd = bind('eventfd', 'int', ['unsigned int', 'int'])

const RWF_NOWAIT = 8

/** A new counter at zero: an fd or -errno. */
export const eventfdCreate = (): number => call(eventfd, 0, O_CLOEXEC)

const counter = new BigUint64Array(1)
const counterBytes = new Uint8Array(counter.buffer)
const iovec = new BigUint64Array([addressOf(counterBytes), 8n])
const iovecBytes = new Uint8Array(iovec.buffer)

/** Takes the count and sets it to zero; -EAGAIN while it is zero. */
export const eventfdRead = (fd: number): bigint | number => {
  let answer = sys.preadv2(fd, iovecBytes, -1n, RWF_NOWAIT)
  // Before Linux 5.8 an eventfd does not know RWF_NOWAIT.
  if (answer === -ERRNO.EOPNOTSUPP)
    answer = pendingEvents(fd, POLLIN) > 0 ? sys.readSync(fd, counterBytes) : -ERRNO.EAGAIN
  return answer < 0 ? answer : (counter[0] as bigint)
}

/** Adds one; -EAGAIN where the count is at its maximum and a write would sleep. */
export const eventfdSignal = (fd: number): number => {
  const pending = pendingEvents(fd, POLLOUT)
  if (pending < 0) return pending
  if ((pending & POLLOUT) === 0) return pending === 0 ? -ERRNO.EAGAIN : -ERRNO.EBADF
  counter[0] = 1n
  const answer = sys.writeSync(fd, counterBytes)
  return Math.min(answer, 0)
}

/**
 * The same for a counter that a client shares, which can fill it between the look and the write: the
 * write sleeps on the thread pool then, until the counter is read.
 */
export const eventfdAdd = (fd: number, count: bigint): Promise<number> =>
  sys.write(fd, new Uint8Array(new BigUint64Array([count]).buffer))

/** Whether an fd is an event counter. */
export const isEventfd = (fd: number): boolean => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]'
  } catch {
    return false
  }
}
