/**
 * Calls into the C library: the only file that loads one. An answer is `>= 0` or `-errno`.
 *
 * koffi keeps neither a Buffer argument nor the errno of an asynchronous call alive, so this file
 * does: arguments are held until the callback, and errno is the first thing the callback reads.
 */

import koffi from 'koffi'
import { currentAccount, type Sleep, ThreadShares } from './thread-shares.ts'

// Must come before the first load; later it throws.
koffi.config({ max_async_calls: 4096 })

// null is the process itself, whose libc is the one Node runs on (glibc or musl).
const library = koffi.load(null)

export type NativeFunction = ReturnType<typeof library.func>

export type PollHandle = ReturnType<typeof koffi.node.poll>

/** Binds a C function. Variadic ones (open, ioctl, fcntl, syscall) are bound with a fixed list:
 * the same registers on Linux x86-64 and arm64, and koffi cannot call variadics off the thread. */
export const bind = (name: string, result: string, parameters: string[]): NativeFunction =>
  library.func(name, result, parameters)

/** Calls at once, on this thread: only for what cannot sleep. */
export const call = (fn: NativeFunction, ...args: unknown[]): number => {
  const result: number | bigint = fn(...args)
  return result < 0 ? -koffi.errno() : Number(result)
}

/** As libuv has it. */
const THREADS = 4

const shares = new ThreadShares(Number(process.env.UV_THREADPOOL_SIZE ?? THREADS))

/** Half of the 4096 that koffi allows, so that calls of other threads of this process fit too. */
const IN_FLIGHT_MAX = 2048

/** The arguments of every call under way: what keeps their buffers from being collected. */
const inFlight = new Set<readonly unknown[]>()
const waiting: (() => void)[] = []

/** Calls on a thread of the libuv pool. A call that blocks there cannot be interrupted. */
export const callAsync = (fn: NativeFunction, ...args: unknown[]): Promise<number> =>
  shared('bounded', () => callOnThread(fn, args))

/** The same for a call that may wait until another client acts. */
export const callEndless = (fn: NativeFunction, ...args: unknown[]): Promise<number> =>
  shared('endless', () => callOnThread(fn, args))

/** Made when the account whose call it is has a thread for it; the daemon's own at once. */
const shared = (sleep: Sleep, call: () => Promise<number>): Promise<number> => {
  const account = currentAccount()
  if (account === undefined) return call()
  return new Promise((resolve) => {
    const start = () => resolve(call().finally(() => shares.end(account, sleep)))
    shares.begin(account, { sleep, start })
  })
}

const callOnThread = (fn: NativeFunction, args: readonly unknown[]): Promise<number> =>
  new Promise((resolve, reject) => {
    // Nothing may throw into koffi's callback: it would be lost, or end up in another call.
    const start = (): void => {
      inFlight.add(args)
      try {
        fn.async(...args, finish)
      } catch (failure) {
        inFlight.delete(args)
        reject(failure)
      }
    }
    const finish = (failure: unknown, result: number | bigint): void => {
      const answer = result < 0 ? -koffi.errno() : Number(result)
      inFlight.delete(args)
      waiting.shift()?.()
      if (failure) reject(failure)
      else resolve(answer)
    }
    if (inFlight.size < IN_FLIGHT_MAX) start()
    else waiting.push(start)
  })

/** The address of a typed array that lives on the JS heap, valid while something refers to it. */
export const addressOf = (bytes: Uint8Array): bigint => koffi.address(bytes)

/** The bytes at an address, uncopied. Above 4 GiB Node 20 aborts the process; never ask for it. */
export const viewOf = (address: number, length: number): ArrayBuffer =>
  koffi.view(BigInt(address), length)

/** Calls back whenever an epoll fd has events. Only for epoll fds: another kind may abort the
 * process here (unpollable), and would be set O_NONBLOCK for everyone who shares it. */
export const pollEpollFd = (fd: number, onReadable: () => void): PollHandle =>
  koffi.node.poll(fd, { readable: true }, onReadable)
