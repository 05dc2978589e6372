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

/** io_setup(2) and its family: asm/unistd_64.h, and asm-generic/unistd.h on arm64. */
const SYS =
  process.arch === 'x64'
    ? { io_setup: 206, io_getevents: 208, io_submit: 209 }
    : { io_setup: 0, io_getevents: 4, io_submit: 2 }

/**
 * One piece of memory for all that the kernel is shown, linux/aio_abi.h: a struct iocb, which all in
 * zeros is a read of no bytes, the list of such requests, and the struct io_event of the completion.
 */
const AT = { fd: 20, flags: 56, eventfd: 60, list: 64, completion: 72, end: 104 } as const
const IOCB_FLAG_RESFD = 1
const shown = new DataView(new ArrayBuffer(AT.end))
const shownAt = Number(addressOf(new Uint8Array(shown.buffer)))
shown.setUint32(AT.flags, IOCB_FLAG_RESFD, true)
shown.setBigUint64(AT.list, BigInt(shownAt), true)

/** What completions are collected by, made at the first signal; 'none' where the kernel forbids it. */
let completions: number | 'none' | undefined

const completionsOf = (): number | 'none' => {
  if (completions !== undefined) return completions
  // The number of the context is written where the completions come later.
  const answer = sys.syscall(SYS.io_setup, 1, shownAt + AT.completion)
  completions = answer < 0 ? 'none' : Number(shown.getBigUint64(AT.completion, true))
  return completions
}

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

/**
 * Adds one, as the kernel itself does for an interrupt: it does not sleep, and a count that is full
 * stays full. An fd that is not a counter is -EINVAL.
 *
 * A write would sleep where a client that shares the counter fills it, so none is made: an
 * asynchronous read (io_submit(2)) signals the counter as it completes. It reads no bytes, which a
 * counter refuses, and a read that was refused is complete as well.
 */
export const eventfdSignal = (fd: number): number => {
  const context = completionsOf()
  if (context === 'none') return writeOne(fd)
  shown.setInt32(AT.fd, fd, true)
  shown.setInt32(AT.eventfd, fd, true)
  const answer = sys.syscall(SYS.io_submit, context, 1, shownAt + AT.list)
  if (answer < 0) return answer
  sys.syscall(SYS.io_getevents, context, 0, 1, shownAt + AT.completion, 0)
  return 0
}

/** The same where the kernel has no asynchronous reads: it may sleep when another fills the counter. */
const writeOne = (fd: number): number => {
  const pending = pendingEvents(fd, POLLOUT)
  if (pending < 0) return pending
  if ((pending & POLLOUT) === 0) return pending === 0 ? 0 : -ERRNO.EBADF
  counter[0] = 1n
  return Math.min(sys.writeSync(fd, counterBytes), 0)
}

/** Whether an fd is an event counter. */
export const isEventfd = (fd: number): boolean => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]'
  } catch {
    return false
  }
}
