/** Where pages come from: addresses of a process, or a file. Both begin at a page. */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import { sys } from '../../../os/libc.ts'
import { fileIdentity, freeSegment, type Segment } from '../../../os/memory.ts'
import { type MemoryPiece, pieceAt } from '../../../os/pieces.ts'
import type { Mm } from '../core/mm.ts'

export interface MemorySource {
  readonly kind: 'user' | 'file'
  /** Stands for the physical address: memory is as contiguous and as aligned as this says. */
  readonly base: bigint
  /** 0 when every page is there and may be pinned for that access, else -errno. */
  check(offset: bigint, length: bigint, isWritten: boolean): number
  piece(offset: bigint, length: number): MemoryPiece | undefined
  release(): void
}

export class UserMemory implements MemorySource {
  readonly kind = 'user'
  readonly base: bigint

  readonly #mm: Mm

  constructor(mm: Mm, base: bigint) {
    this.#mm = mm
    this.base = base
  }

  check(offset: bigint, length: bigint, isWritten: boolean): number {
    const start = this.base + offset
    if (this.#mm.isPinnable(start, length, isWritten)) return 0
    // Segments that touch are one run of pages to a kernel, so look at each page before saying no.
    for (let at = start; at < start + length; at += PAGE_SIZE)
      if (!this.#mm.isPinnable(at, PAGE_SIZE, isWritten)) return -ERRNO.EFAULT
    return 0
  }

  piece(offset: bigint, length: number): MemoryPiece | undefined {
    return pieceAt(this.base + offset, length)
  }

  release(): void {}
}

/** Where a file is mapped: the pages begin `skip` bytes into it. */
export interface MappedFile {
  readonly segment: Segment
  readonly skip: bigint
}

/** A file by its own fd, mapped if possible; a file that is not mapped cannot be pinned. */
export class FileMemory implements MemorySource {
  readonly kind = 'file'
  readonly base: bigint
  readonly #fd: number
  readonly #mapped: MappedFile | undefined

  constructor(fd: number, base: bigint, mapped: MappedFile | undefined) {
    this.#fd = fd
    this.base = base
    this.#mapped = mapped
  }

  check(offset: bigint, length: bigint, _isWritten: boolean): number {
    const file = fileIdentity(this.#fd)
    if (typeof file === 'number') return file
    const isMemory = file.kind === 'memfd-or-shm' || file.kind === 'hugetlbfs'
    if (!isMemory || this.base + offset + length > file.size) return -ERRNO.EINVAL
    return this.#mapped === undefined ? -ERRNO.EFAULT : 0
  }

  piece(offset: bigint, length: number): MemoryPiece | undefined {
    const mapped = this.#mapped
    return mapped && pieceAt(mapped.segment.address + mapped.skip + offset, length)
  }

  release(): void {
    if (this.#mapped) freeSegment(this.#mapped.segment)
    sys.closeSync(this.#fd)
  }
}
