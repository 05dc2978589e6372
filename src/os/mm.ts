/**
 * Which address space (mm) a process runs in. An exec replaces it and changes nothing else that
 * names a process: not the pid, the pidfd, the start time or its sockets.
 *
 * Nothing here waits for the process: its memory is never read, and its mmap lock never taken, which
 * it could hold, or make a page of that a file server never delivers. Two answers need neither:
 * - /proc/PID/pagemap stays with the mm it was opened on. A read that is not aligned is refused with
 *   EINVAL where that mm still has a user, and answers 0 bytes where it has none (pagemap_read).
 * - /proc/PID/task/PID/stat has the addresses where the image, its data and its stack begin. They
 *   are randomized, so another image has others. That of one thread, because that of a process adds
 *   up all of its threads.
 * Missed is an exec of the same program without randomization (setarch -R) while a relative
 * (CLONE_VM) keeps the former mm: the same user runs the same program at the same addresses.
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
  /** The fd whose reads tell whether the address space has a user left (`hasUser`), while the pin is
   * open; undefined where the kernel has no such file. A process that may not open it may read it. */
  readonly pagemap: number | undefined
  /** Whether the process still runs in the address space that it was pinned in. */
  look(): MmFinding
  close(): void
}

/** Whether the address space that a pagemap was opened on has a user left, or -errno. */
export const hasUser = (pagemap: number): boolean | number => {
  const answer = sys.preadSync(pagemap, Buffer.alloc(1), 0n)
  if (answer === 0) return false
  return answer === -ERRNO.EINVAL ? true : answer
}

const O_PATH = 0o10000000
const O_DIRECTORY = 0o200000

/** A line of stat: a name of 16 bytes, and 51 numbers. */
const STAT_MAX = 2048

/** proc_pid_stat(5), counted after the name: startcode, endcode, startstack; start_data, end_data,
 * start_brk. What a process changes to show another title (arg_start and its kin) is not among them. */
const ADDRESSES = [26, 27, 28, 45, 46, 47].map((field) => field - 3)

// Through the directory, not by pid: it stays with the process when another one gets the number.
const openIn = (processDir: number, name: string): number =>
  sys.openSync(`/proc/self/fd/${processDir}/${name}`, O_RDONLY)

/**
 * The addresses of the image. -ESRCH for a process without an address space (a zombie, a kernel
 * thread, a pid long gone), -EACCES where this process may not read them.
 */
const imageOf = (pid: number, processDir: number): string | number => {
  const fd = withReserve(() => openIn(processDir, `task/${pid}/stat`))
  if (fd < 0) return fd === -ERRNO.ENOENT ? -ERRNO.ESRCH : fd
  const bytes = Buffer.alloc(STAT_MAX)
  const length = sys.readSync(fd, bytes)
  sys.closeSync(fd)
  if (length < 0) return length
  const stat = bytes.toString('latin1', 0, length)
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const addresses = ADDRESSES.map((field) => fields[field])
  // The size of the address space, field 23, is there for every reader.
  if (fields[20] === '0' || fields[20] === undefined) return -ERRNO.ESRCH
  return addresses.every((each) => each === '0' || each === '1')
    ? -ERRNO.EACCES
    : addresses.join(' ')
}

/** Where the image of a process lies is for the kernel to keep. */
const digestOf = (addresses: string): string => createHash('sha256').update(addresses).digest('hex')

class Pin implements MmPin {
  readonly pid: number
  readonly image: string
  readonly #processDir: number
  readonly pagemap: number | undefined
  readonly #pinned: string
  #isClosed = false

  constructor(
    pid: number,
    fds: { readonly processDir: number; readonly pagemap: number | undefined },
    pinned: string,
  ) {
    this.pid = pid
    this.#processDir = fds.processDir
    this.pagemap = fds.pagemap
    this.#pinned = pinned
    this.image = digestOf(pinned)
  }

  look(): MmFinding {
    if (this.#isClosed) return 'gone'
    if (this.pagemap !== undefined) {
      const isUsed = hasUser(this.pagemap)
      if (isUsed !== true) return isUsed === false ? 'gone' : isUsed
    }
    // The former mm lives on after an exec while a CLONE_VM relative uses it, so look at the present.
    const present = imageOf(this.pid, this.#processDir)
    if (typeof present === 'number') return present
    return present === this.#pinned ? 'current' : 'gone'
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.pagemap !== undefined) sys.closeSync(this.pagemap)
    sys.closeSync(this.#processDir)
  }
}

export interface PinOptions {
  /** The pidfd of the process: makes sure that the pid still meant that one. */
  readonly pidfd?: number
}

const openProcess = (pid: number): number => {
  const processDir = sys.openSync(`/proc/${pid}`, O_PATH | O_DIRECTORY)
  return processDir === -ERRNO.ENOENT ? -ERRNO.ESRCH : processDir
}

/** Pins the address space that a process runs in. -ESRCH where it has none (a zombie, a kernel
 * thread, a free pid), -EACCES where this process may not look. The pagemap is opened on another thread: that
 * waits while the process execs, until the kernel has freed its former memory. */
export const pinMm = async (pid: number, options: PinOptions = {}): Promise<MmPin | number> => {
  const processDir = openProcess(pid)
  if (processDir < 0) return processDir
  // It stays open, so it is not taken from the reserve.
  const path = `/proc/self/fd/${processDir}/pagemap`
  return pinWith(pid, { processDir, opened: await sys.open(path, O_RDONLY) }, options)
}

/** The image that a process runs now, as a pin of it has it, or -errno. It waits for nothing. */
export const imageNow = (pid: number): string | number => {
  const processDir = openProcess(pid)
  if (processDir < 0) return processDir
  const image = imageOf(pid, processDir)
  sys.closeSync(processDir)
  return typeof image === 'number' ? image : digestOf(image)
}

const pinWith = (
  pid: number,
  { processDir, opened }: { readonly processDir: number; readonly opened: number },
  { pidfd }: PinOptions,
): MmPin | number => {
  // A kernel may be built without it (CONFIG_PROC_PAGE_MONITOR): then the addresses alone tell.
  const pagemap = opened === -ERRNO.ENOENT ? undefined : opened
  const pinned = pagemap !== undefined && pagemap < 0 ? pagemap : imageOf(pid, processDir)
  if (typeof pinned === 'number') {
    if (pagemap !== undefined && pagemap >= 0) sys.closeSync(pagemap)
    sys.closeSync(processDir)
    return pinned
  }
  const pin = new Pin(pid, { processDir, pagemap }, pinned)
  // An exec between the opens would have pinned two address spaces.
  const found = pin.look()
  if (found === 'current' && (pidfd === undefined || isAlive(pidfd))) return pin
  pin.close()
  return typeof found === 'number' ? found : -ERRNO.ESRCH
}
