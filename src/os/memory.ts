/**
 * Memory of this process that kernels may be pointed at: segments, each mapped by this file and
 * known by its address. A kernel, real or simulated, is given addresses; `bytesAt` leads back from
 * an address to bytes, and knows nothing but segments: any other address is -EFAULT to the simulator.
 */

import { ERRNO } from '../base/errno.ts'
import { type Vaddr, vaddr } from '../base/units.ts'
import { viewOf } from './async-call.ts'
import { addSeals, fileIdentity, SEALS } from './file-identity.ts'
import { sys } from './libc.ts'

export { addressOf } from './async-call.ts'
export { addSeals, type FileIdentity, fileIdentity, SEALS } from './file-identity.ts'

export type SegmentAccess = 'read' | 'read-write'

export interface Segment {
  readonly address: Vaddr
  readonly length: number
  readonly access: SegmentAccess
  /** All of it; throws a RangeError above VIEW_MAX (then use `view`) and once it is freed. */
  readonly bytes: Uint8Array
  /** Part of it, uncopied. Writing to a 'read' segment is a SIGSEGV: check `access` first. */
  view(offset: number, length: number): Uint8Array
}

/** The longest single view: Node 20 aborts the process for an ArrayBuffer above 4 GiB. */
export const VIEW_MAX = 2 ** 32

const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const MFD_HUGETLB = 4
const HUGE_SHIFT = { '2M': 21, '1G': 30 } as const
const MFD_HUGE_SHIFT = 26

const PROT_READ = 1
const PROT_WRITE = 2
const PROT_NONE = 0
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000

const PAGE = 4096
/** Segments above VIEW_MAX are seen through windows this far apart. */
const WINDOW = 2 ** 30
const pages = (length: number): number => Math.ceil(length / PAGE) * PAGE

/** Anonymous shared memory of that length: an fd or -errno. Sealable, close-on-exec. */
export const memfdCreate = (
  name: string,
  length: bigint,
  options: { readonly hugePage?: '2M' | '1G' } = {},
): number => {
  const huge = options.hugePage ? MFD_HUGETLB | (HUGE_SHIFT[options.hugePage] << MFD_HUGE_SHIFT) : 0
  const fd = sys.memfdCreate(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | huge)
  if (fd < 0) return fd
  const sized = sys.ftruncate(fd, length)
  if (sized < 0) sys.closeSync(fd)
  return sized < 0 ? sized : fd
}

/**
 * Touching unmapped memory kills the process, and a view that outlives its mapping could even
 * reach the next mapping at the same address. JS cannot take a view back, so while one is alive
 * the addresses of a freed mapping are covered with empty private memory; when the last one is
 * collected they are unmapped.
 */
class Mapping implements Segment {
  readonly address: Vaddr
  readonly start: number
  readonly length: number
  readonly access: SegmentAccess
  /** Whether its file can be cut, or run out of pages: touching what is gone is a SIGBUS. */
  readonly mayVanish: boolean
  /** One window per WINDOW bytes, each reaching one WINDOW further, made when it is first used. */
  readonly #windows = new Map<number, ArrayBuffer>()
  #buffersAlive = 0
  /** Set once freed: settles when nothing of the mapping is left but reserved addresses. */
  #covered: Promise<number> | undefined

  constructor(
    start: number,
    { length, access, mayVanish }: Pick<Mapping, 'length' | 'access' | 'mayVanish'>,
  ) {
    this.start = start
    this.mayVanish = mayVanish
    this.address = vaddr(BigInt(start))
    this.length = length
    this.access = access
  }

  get bytes(): Uint8Array {
    return this.view(0, this.length)
  }

  view(offset: number, length: number): Uint8Array {
    if (this.#covered) throw new RangeError('Cannot view a segment: it is freed')
    if (offset < 0 || length < 0 || offset + length > this.length)
      throw new RangeError('Cannot view a segment: the range is not inside it')
    const base = Math.floor(offset / WINDOW) * WINDOW
    if (this.length <= VIEW_MAX) return new Uint8Array(this.#window(0, this.length), offset, length)
    if (offset - base + length <= 2 * WINDOW)
      return new Uint8Array(this.#window(base, 2 * WINDOW), offset - base, length)
    if (length <= VIEW_MAX) return new Uint8Array(this.#bufferOver(offset, length))
    throw new RangeError('Cannot view a segment: one view covers at most 4 GiB')
  }

  #window(base: number, length: number): ArrayBuffer {
    const known = this.#windows.get(base)
    if (known) return known
    const made = this.#bufferOver(base, Math.min(length, this.length - base))
    this.#windows.set(base, made)
    return made
  }

  #bufferOver(offset: number, length: number): ArrayBuffer {
    const buffer = viewOf(this.start + offset, length)
    this.#buffersAlive += 1
    collected.register(buffer, this)
    return buffer
  }

  /** The kernel may keep us waiting for the lock of the address space, so it is asked elsewhere. */
  free(): Promise<number> {
    if (this.#covered) throw new Error('Cannot free a segment: it is freed already')
    this.#windows.clear()
    this.#covered = this.#buffersAlive === 0 ? this.#unmap() : this.#cover()
    return this.#covered
  }

  bufferCollected(): void {
    this.#buffersAlive -= 1
    // In this order: covering addresses that are unmapped already could hit a new mapping there.
    if (this.#covered && this.#buffersAlive === 0) void this.#covered.then(() => this.#unmap())
  }

  #unmap(): Promise<number> {
    return sys.munmap(this.start, this.length)
  }

  #cover(): Promise<number> {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
    return sys.mmap(this.start, this.length, PROT_READ | PROT_WRITE, flags, -1, 0n)
  }
}

const collected = new FinalizationRegistry<Mapping>((mapping) => mapping.bufferCollected())

/** Invariant: sorted by start; no two overlap, because the kernel chose the addresses. */
const segments: Mapping[] = []

/** The index of the first segment that starts above `address`. */
const indexAbove = (address: number): number => {
  let low = 0
  let high = segments.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((segments[middle] as Mapping).start <= address) low = middle + 1
    else high = middle
  }
  return low
}

const addSegment = (
  start: number,
  what: Pick<Mapping, 'length' | 'access' | 'mayVanish'>,
): Mapping => {
  const mapping = new Mapping(start, what)
  segments.splice(indexAbove(start), 0, mapping)
  return mapping
}

/** Addresses of at least so many bytes that begin at a multiple of `alignment`; nothing is there yet. */
const reserve = (length: number, alignment: number): number => {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
  const start = sys.mmapSync(0, length + alignment, PROT_NONE, flags, -1, 0n)
  if (start < 0) return start
  const aligned = Math.ceil(start / alignment) * alignment
  if (aligned > start) sys.munmapSync(start, aligned - start)
  const rest = start + alignment - aligned
  if (rest > 0) sys.munmapSync(aligned + length, rest)
  return aligned
}

/**
 * Maps part of a file, shared with everyone else who maps it.
 *
 * @param what.alignment what its address is a multiple of: a power of two of whole pages
 */
export const mapFd = async (
  fd: number,
  what: {
    readonly offset: bigint
    readonly length: bigint
    readonly access: SegmentAccess
    readonly alignment?: number
  },
): Promise<Segment | number> => {
  if (what.length <= 0n) return -ERRNO.EINVAL
  if (what.length > BigInt(Number.MAX_SAFE_INTEGER)) return -ERRNO.ENOMEM
  const file = fileIdentity(fd)
  if (typeof file === 'number') return file
  // A mapping beyond the end of a file can be made, but touching it kills the process.
  if (file.kind !== 'other' && what.offset + what.length > file.size) return -ERRNO.EINVAL
  // The kernel would map whole huge pages, and refuse to unmap less.
  if (what.length % file.pageSize !== 0n) return -ERRNO.EINVAL
  const length = Number(what.length)
  const prot = what.access === 'read' ? PROT_READ : PROT_READ | PROT_WRITE
  const alignment = Math.max(what.alignment ?? 0, Number(file.pageSize))
  const at = what.alignment === undefined ? 0 : reserve(length, alignment)
  if (at < 0) return at
  const flags = at === 0 ? MAP_SHARED : MAP_SHARED | MAP_FIXED
  const start = await sys.mmap(at, length, prot, flags, fd, what.offset)
  // A sealed memfd keeps its length, and needs no room in a file system.
  const isSure = file.kind === 'memfd-or-shm' && (file.seals & SEALS.SHRINK) !== 0
  if (start >= 0) return addSegment(start, { length, access: what.access, mayVanish: !isSure })
  if (at > 0) sys.munmapSync(at, length)
  return start
}

/** Private zeroed memory, page-aligned: for what kernels fill in. Throws when there is none. */
export const allocPages = (length: number): Segment => {
  const start = sys.mmapSync(
    0,
    pages(length),
    PROT_READ | PROT_WRITE,
    MAP_PRIVATE | MAP_ANONYMOUS,
    -1,
    0n,
  )
  if (start < 0) throw new Error(`Cannot allocate ${length} bytes: errno ${-start}`)
  return addSegment(start, { length: pages(length), access: 'read-write', mayVanish: false })
}

/**
 * Unmaps a segment, in the background. It is unknown to `bytesAt` from here on and gives no new
 * views; views handed out before read zeros and write nowhere, for JS cannot take them back.
 */
export const freeSegment = (segment: Segment): void => {
  void unmapSegment(segment)
}

/** The same; answers once nothing of the file is mapped there any more: 0 or -errno. */
export const unmapSegment = (segment: Segment): Promise<number> => {
  const mapping = segment as Mapping
  const gone = mapping.free()
  segments.splice(indexAbove(mapping.start) - 1, 1)
  // Where it is covered, the answer is an address.
  return gone.then((answer) => Math.min(answer, 0))
}

/** Shared memory of our own, and the fd by which others map it. */
export interface SharedMemory {
  readonly fd: number
  readonly segment: Segment
}

/** Zeroed memory behind an fd, in whole pages. Throws when there is none. */
export const allocShared = (name: string, length: number): SharedMemory => {
  const fd = memfdCreate(name, BigInt(pages(length)))
  if (fd < 0) throw new Error(`Cannot make a memfd of ${length} bytes: errno ${-fd}`)
  const start = sys.mmapSync(0, pages(length), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0n)
  if (start < 0) {
    sys.closeSync(fd)
    throw new Error(`Cannot map ${length} bytes: errno ${-start}`)
  }
  // A process that maps it by the fd may rely on it too.
  addSeals(fd, SEALS.SHRINK)
  const what = { length: pages(length), access: 'read-write', mayVanish: false } as const
  return { fd, segment: addSegment(start, what) }
}

const segmentAround = (address: bigint, length: number): Mapping | undefined => {
  // Exact below 2^53; above it there is no user space, and no segment either.
  const start = Number(address)
  const segment = segments[indexAbove(start) - 1]
  const isInside = length >= 0 && segment && start + length <= segment.start + segment.length
  return isInside ? segment : undefined
}

/** The bytes at an address, if they lie wholly inside one segment. Bytes on the JS heap do not. */
export const bytesAt = (address: bigint, length: number): Uint8Array | undefined => {
  const segment = segmentAround(address, length)
  return segment?.view(Number(address) - segment.start, length)
}

/** Whether the memory at an address may vanish; undefined unless it lies wholly inside one segment. */
export const mayVanish = (address: bigint, length: number): boolean | undefined =>
  segmentAround(address, length)?.mayVanish

/** What may be done with the memory at an address, if it lies wholly inside one segment. */
export const accessAt = (address: bigint, length: number): SegmentAccess | undefined =>
  segmentAround(address, length)?.access
