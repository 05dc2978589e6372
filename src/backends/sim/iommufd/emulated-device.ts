/**
 * A mediated device that is bound to an iommufd: its driver pins what it needs by itself, or reads
 * and writes memory through the ioas. struct iommufd_access of the kernel.
 */

import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE, U64_MAX } from '../../../base/units.ts'
import type { Range } from '../../../rules/range-map.ts'
import type { EmulatedDma, PinRequest, PinUser } from '../iommu/emulated-dma.ts'
import type { Binding } from './binding.ts'
import type { IommufdContext } from './context.ts'
import type { AccessPart, IommufdAccess } from './io-pagetable.ts'
import type { Ioas } from './ioas.ts'
import { IommufdObject } from './objects.ts'

export const bindEmulated = (context: IommufdContext, user: PinUser): EmulatedDevice => {
  context.file.get()
  return context.objects.insert(new EmulatedDevice(context, user))
}

class EmulatedDevice extends IommufdObject implements Binding, IommufdAccess, EmulatedDma {
  /** A driver pins whole pages. */
  readonly alignment: bigint = PAGE_SIZE
  readonly emulatedDma = this
  readonly #context: IommufdContext
  readonly #user: PinUser
  #ioas: Ioas | undefined

  constructor(context: IommufdContext, user: PinUser) {
    super()
    this.#context = context
    this.#user = user
    // The driver is a user until it unbinds.
    this.users = 1
  }

  attach(ptId: number): number {
    const ioas = this.#context.ioas(ptId)
    if (ioas === undefined) return -ERRNO.ENOENT
    if (ioas === this.#ioas) return ptId
    const added = ioas.iopt.addAccess(this)
    if (added < 0) return added
    ioas.users += 1
    this.detach()
    this.#ioas = ioas
    return ptId
  }

  detach(): void {
    if (this.#ioas === undefined) return
    this.unmapped({ start: 0n, last: U64_MAX })
    this.#ioas.iopt.removeAccess(this)
    this.#ioas.users -= 1
    this.#ioas = undefined
  }

  unmapped(range: Range<bigint>): void {
    this.#user.unmapped(range)
  }

  pin({ iova, pages, isWritten }: PinRequest): number {
    const range = rangeOf(iova, BigInt(pages) * PAGE_SIZE)
    if (typeof range === 'number') return range
    const parts = this.#ioas?.iopt.partsFor(range, isWritten) ?? -ERRNO.ENOENT
    if (typeof parts === 'number') return parts
    const pinned: typeof parts = []
    for (const part of parts) {
      const answer = isWhole(part) ? part.area.pages.pin(pagesOf(part)) : -ERRNO.EINVAL
      if (answer < 0) {
        for (const done of pinned) release(done)
        return answer
      }
      part.area.accesses += 1
      pinned.push(part)
    }
    return 0
  }

  unpin({ iova, pages }: PinRequest): void {
    const range = { start: iova, last: iova + BigInt(pages) * PAGE_SIZE - 1n }
    for (const part of this.#ioas?.iopt.contiguous(range) ?? []) release(part)
  }

  transfer(iova: bigint, bytes: Uint8Array, access: 'read' | 'write'): number {
    const range = rangeOf(iova, BigInt(bytes.length))
    if (typeof range === 'number') return range
    let done = 0
    for (const { area, start, last } of this.#ioas?.iopt.contiguous(range) ?? []) {
      if (access === 'write' && !area.pages.isWritable) return -ERRNO.EPERM
      const found = area.pages.check(pagesOf({ area, start, last }))
      if (found < 0) return found
      const length = Number(last - start) + 1
      const memory = area.piece(start, length)
      if (memory === undefined) return -ERRNO.EFAULT
      const ours = bytes.subarray(done, done + length)
      const isThere = access === 'write' ? memory.write(ours) : memory.read(ours)
      if (!isThere) return -ERRNO.EFAULT
      done += length
    }
    return done === bytes.length ? 0 : -ERRNO.ENOENT
  }

  unbind(): void {
    this.users -= 1
    this.#context.objects.remove(this)
  }

  override destroy(): void {
    this.detach()
    this.#context.file.put()
  }
}

const rangeOf = (iova: bigint, length: bigint): Range<bigint> | number => {
  if (length === 0n) return -ERRNO.EINVAL
  const last = iova + length - 1n
  return last > U64_MAX ? -ERRNO.EOVERFLOW : { start: iova, last }
}

const pagesOf = ({ area, start, last }: AccessPart): Range<bigint> => ({
  start: area.byteOf(start) / PAGE_SIZE,
  last: area.byteOf(last) / PAGE_SIZE,
})

/** Pinned pages follow each other without an offset, so every part has whole pages. */
const isWhole = ({ area, start, last }: AccessPart): boolean =>
  area.byteOf(start) % PAGE_SIZE === 0n && (area.byteOf(last) + 1n) % PAGE_SIZE === 0n

const release = (part: AccessPart): void => {
  part.area.pages.unpin(pagesOf(part))
  part.area.accesses -= 1
}
