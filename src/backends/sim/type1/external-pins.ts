/**
 * What drivers of mediated devices do in a container: pages pinned one by one, beside those that
 * an IOMMU has. A page is charged once, to the owner of its mapping, and not again where the whole
 * mapping is charged already. While tracking is on, pinned and written pages are dirty.
 */

import { VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE } from '../../../abi/container.ts'
import { ERRNO } from '../../../base/errno.ts'
import { PAGE_SIZE } from '../../../base/units.ts'
import type { EmulatedDma, PinRequest } from '../iommu/emulated-dma.ts'
import type { Mapping } from './mapping.ts'
import type { MappingTree } from './mapping-tree.ts'
import { charge } from './pinning.ts'

/** The container. Invariant: while it has mediated devices, every mapping has a vaddr. */
interface Backend {
  readonly model: 'v1' | 'v2'
  readonly mappings: MappingTree
}

export class Type1Dma implements EmulatedDma {
  readonly #type1: Backend

  constructor(type1: Backend) {
    this.#type1 = type1
  }

  pin({ iova, pages, isWritten }: PinRequest): number {
    if (this.#type1.model === 'v1') return -ERRNO.EACCES
    for (let page = 0; page < pages; page++) {
      const pinned = this.#pinOne(iova + BigInt(page) * PAGE_SIZE, isWritten)
      if (pinned === 0) continue
      this.unpin({ iova, pages: page, isWritten })
      return pinned
    }
    return 0
  }

  unpin({ iova, pages }: PinRequest): void {
    for (let page = 0; page < pages; page++) {
      const at = iova + BigInt(page) * PAGE_SIZE
      const mapping = this.#type1.mappings.at(at)
      if (mapping === undefined) throw new Error('Cannot unpin what is not mapped')
      mapping.external.remove(pageOf(mapping, at))
      if (!mapping.isIommuMapped) recharge(mapping)
    }
  }

  transfer(iova: bigint, bytes: Uint8Array, access: 'read' | 'write'): number {
    for (let done = 0; done < bytes.length; ) {
      const at = iova + BigInt(done)
      const mapping = this.#type1.mappings.at(at)
      if (mapping === undefined) return -ERRNO.EINVAL
      const mayRead = (mapping.access & VFIO_DMA_MAP_FLAG_READ) !== 0
      if (!mayRead || (access === 'write' && !mapping.mayWrite)) return -ERRNO.EPERM
      if (!mapping.owner.isAlive) return -ERRNO.EPERM
      const left = Number(mapping.last - at) + 1
      const length = Math.min(left, bytes.length - done)
      const piece = mapping.piece(at - mapping.iova, length)
      if (piece === undefined) return -ERRNO.EFAULT
      const ours = bytes.subarray(done, done + length)
      const isThere = access === 'read' ? piece.read(ours) : piece.write(ours)
      if (!isThere) return -ERRNO.EFAULT
      if (access === 'write') {
        mapping.dirty?.set(pageOf(mapping, at), pageOf(mapping, at + BigInt(length) - 1n))
      }
      done += length
    }
    return 0
  }

  #pinOne(iova: bigint, isWritten: boolean): number {
    const mapping = this.#type1.mappings.at(iova)
    if (mapping === undefined || iova + PAGE_SIZE - 1n > mapping.last) return -ERRNO.EINVAL
    const wanted = isWritten ? VFIO_DMA_MAP_FLAG_WRITE : VFIO_DMA_MAP_FLAG_READ
    if ((mapping.access & wanted) === 0) return -ERRNO.EPERM
    const page = pageOf(mapping, iova)
    const { owner } = mapping
    const vaddr = mapping.vaddr + BigInt(page) * PAGE_SIZE
    const isFresh = !mapping.external.has(page)
    if (isFresh && !owner.isAlive) return -ERRNO.ENODEV
    if (isFresh && !owner.isPinnable(vaddr, PAGE_SIZE, mapping.mayWrite)) return -ERRNO.EFAULT
    mapping.external.add(page)
    const charged = mapping.isIommuMapped ? 0 : recharge(mapping)
    if (charged < 0) {
      mapping.external.remove(page)
      return charged
    }
    mapping.dirty?.set(page, page)
    return 0
  }
}

/** Charges the pages pinned now instead of the former ones: -ENOMEM, and nothing changes. */
const recharge = (mapping: Mapping): number => {
  const pages = mapping.externalToLock
  const charged = charge(mapping.owner, pages - mapping.lockedPages)
  if (charged === 0) mapping.lockedPages = pages
  return charged
}

const pageOf = ({ iova: start }: Mapping, iova: bigint): number =>
  Number((iova - start) / PAGE_SIZE)
