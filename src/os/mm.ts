/**
 * Which address space (mm) a process runs in. An exec replaces it and changes nothing else that
 * names a process: not the pid, the pidfd, the start time or its sockets. Only files of /proc/PID
 * that were opened before tell: they stay with the mm they were opened on.
 */

import { createHash } from 'node:crypto'
import { ERRNO } from '../base/errno.ts'
import { withReserve } from './fd-reserve.ts'
import { O_RDONLY, sys } from './libc.ts'
import { isAlive } from './process.ts'

/**
 * What a look at a pinned process found. `gone` has proof: its address space has no user left, or
 * another image was read. Every other failure to look (no fd number left, no memory, no permission)
 * is the -errno: it says nothing about the process.
 */
export type MmFinding = 'current' | 'gone' | number

export interface MmPin {
  readonly pid: number
  /** Differs from one image of the process to the next, and is the same for every process that pins it. */
  readonly image: string
  /** Whether the process still runs in the address space that it was pinned in. */
  look(): MmFinding
  close(): void
}

const O_PATH = 0o10000000
const O_DIRECTORY = 0o200000
const AT_RANDOM = 25n
const AUXV_MAX = 1024
const RANDOM_SIZE = 16

/** What one image differs in from the next: its aux vector, full of randomized addresses, and the
 * 16 random bytes that the kernel laid at AT_RANDOM, where reading its memory is allowed. */
interface Fingerprint {
  readonly auxv: Buffer
  /** Undefined where the page cannot be read: the process may have unmapped it. */
  readonly random: Buffer | undefined
  readonly randomAddress: bigint
}

// Through the directory, not by pid: it stays with the process when another one gets the number.
const openIn = (processDir: number, name: string): number =>
  withReserve(() => sys.openSync(`/proc/self/fd/${processDir}/${name}`, O_RDONLY))

const findRandom = (auxv: Buffer): bigint | undefined => {
  for (let at = 0; at + 16 <= auxv.length; at += 16)
    if (auxv.readBigUInt64LE(at) === AT_RANDOM) return auxv.readBigUInt64LE(at + 8)
  return undefined
}

/** -ESRCH for a process without an address space: a zombie, a kernel thread, a pid long gone. */
const fingerprintOf = (processDir: number, readsMemory: boolean): Fingerprint | number => {
  const auxvFd = openIn(processDir, 'auxv')
  if (auxvFd < 0) return auxvFd
  const bytes = Buffer.alloc(AUXV_MAX)
  const length = sys.readSync(auxvFd, bytes)
  sys.closeSync(auxvFd)
  if (length < 0) return length
  const auxv = bytes.subarray(0, length)
  const randomAddress = findRandom(auxv)
  if (randomAddress === undefined) return -ERRNO.ESRCH
  if (!readsMemory) return { auxv, random: undefined, randomAddress }

  const memFd = openIn(processDir, 'mem')
  if (memFd < 0) return memFd
  const random = Buffer.alloc(RANDOM_SIZE)
  const read = sys.preadSync(memFd, random, randomAddress)
  sys.closeSync(memFd)
  return { auxv, random: read === RANDOM_SIZE ? random : undefined, randomAddress }
}

/** An open file that answers 0 bytes once its mm has no user left. */
interface Sentinel {
  readonly fd: number
  /** Whether it is the memory itself; otherwise the list of mappings, which needs less permission. */
  readonly isMemory: boolean
}

/** It stays open, so it is not taken from the reserve. */
const openSentinel = (processDir: number, readsMemory: boolean): Sentinel => {
  const open = (name: string) => sys.openSync(`/proc/self/fd/${processDir}/${name}`, O_RDONLY)
  const memFd = readsMemory ? open('mem') : -ERRNO.EACCES
  const mayNotRead = memFd === -ERRNO.EACCES || memFd === -ERRNO.EPERM
  return mayNotRead ? { fd: open('maps'), isMemory: false } : { fd: memFd, isMemory: true }
}

class Pin implements MmPin {
  readonly pid: number
  readonly image: string
  readonly #processDir: number
  readonly #sentinel: Sentinel
  readonly #pinned: Fingerprint
  #isClosed = false

  constructor(pid: number, processDir: number, sentinel: Sentinel, pinned: Fingerprint) {
    this.pid = pid
    this.#processDir = processDir
    this.#sentinel = sentinel
    this.#pinned = pinned
    // A digest: the random bytes seed the stack protector of the process.
    const { auxv, random = '' } = pinned
    this.image = createHash('sha256').update(auxv).update(random).digest('hex')
  }

  look(): MmFinding {
    if (this.#isClosed) return 'gone'
    const { fd, isMemory } = this.#sentinel
    const length = sys.preadSync(fd, Buffer.alloc(1), isMemory ? this.#pinned.randomAddress : 0n)
    // End of file: the address space has no user left. The list of mappings of a process that was
    // reaped cannot be read at all.
    if (length === 0 || length === -ERRNO.ESRCH) return 'gone'
    // The process may have unmapped that page: its mm lives all the same.
    if (length < 0 && length !== -ERRNO.EIO) return length
    return this.#lookAtPresent()
  }

  /** The old mm lives on after an exec while a CLONE_VM relative uses it, so look at the present. */
  #lookAtPresent(): MmFinding {
    const present = fingerprintOf(this.#processDir, this.#sentinel.isMemory)
    if (typeof present === 'number') return present
    const { auxv, random } = this.#pinned
    if (!present.auxv.equals(auxv)) return 'gone'
    if (present.random === undefined || random === undefined)
      return present.random === random ? 'current' : -ERRNO.EIO
    return present.random.equals(random) ? 'current' : 'gone'
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    sys.closeSync(this.#sentinel.fd)
    sys.closeSync(this.#processDir)
  }
}

export interface PinOptions {
  /** The pidfd of the process: makes sure that the pid still meant that one. */
  readonly pidfd?: number
  /** False to do without /proc/PID/mem, which Yama may refuse even for processes of the same user;
   * it is found out by trying. Without it, two images with the same addresses look the same. */
  readonly readsMemory?: boolean
}

/** Pins the address space that a process runs in. -ESRCH where it has none (a zombie, a kernel
 * thread, a free pid), -EACCES where this process may not look. */
export const pinMm = (pid: number, options: PinOptions = {}): MmPin | number => {
  const { pidfd, readsMemory = true } = options
  const processDir = sys.openSync(`/proc/${pid}`, O_PATH | O_DIRECTORY)
  if (processDir < 0) return processDir === -ERRNO.ENOENT ? -ERRNO.ESRCH : processDir
  const sentinel = openSentinel(processDir, readsMemory)
  const pinned = sentinel.fd < 0 ? sentinel.fd : fingerprintOf(processDir, sentinel.isMemory)
  if (typeof pinned === 'number') {
    if (sentinel.fd >= 0) sys.closeSync(sentinel.fd)
    sys.closeSync(processDir)
    return pinned
  }
  const pin = new Pin(pid, processDir, sentinel, pinned)
  // An exec between the opens would have pinned two address spaces.
  const found = pin.look()
  if (found === 'current' && (pidfd === undefined || isAlive(pidfd))) return pin
  pin.close()
  return typeof found === 'number' ? found : -ERRNO.ESRCH
}
