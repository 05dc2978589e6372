/**
 * The numbers vfiod handles, branded so that one kind cannot be handed over for another.
 *
 * Ranges include both ends, as `struct iommu_iova_range` in iommufd.h does: a half-open range
 * cannot say "up to the top of the address space", an inclusive one can.
 */

declare const brand: unique symbol
type Branded<T, Name extends string> = T & { readonly [brand]: Name }

/** An address as the device sees it, 64 bits. */
export type Iova = Branded<bigint, 'iova'>
/** An address in the memory of this process (`user_va` in iommufd.h), 64 bits. */
export type Vaddr = Branded<bigint, 'vaddr'>

/** Invariant: `start <= last`; both ends are inside. */
export interface IovaRange {
  readonly start: Iova
  readonly last: Iova
}

/** What a device may do with memory: device-perspective, as the MAP flags of vfio.h are. */
export const ACCESSES = ['read', 'write', 'read-write'] as const
export type Access = (typeof ACCESSES)[number]

export const U64_MAX = 0xffff_ffff_ffff_ffffn
export const PAGE_SIZE = 4096n

export const iova = (address: bigint): Iova => address as Iova
export const vaddr = (address: bigint): Vaddr => address as Vaddr

/** `0x1000`: how every address and length reads in messages and logs. */
export const hex = (value: bigint | number): string => `0x${value.toString(16)}`

/** `0x1000..0x1fff`: both ends are inside. */
export const rangeText = ({ start, last }: IovaRange): string => `${hex(start)}..${hex(last)}`
