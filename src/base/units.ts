/**
 * The numbers vfiod handles, branded so that one kind cannot be handed over for another.
 *
 * Ranges include both ends, as `struct iommu_iova_range` in iommufd.h does: a half-open range
 * cannot say "up to the top of the address space", an inclusive one can.
 */

declare const brand: unique symbol
declare const fdKind: unique symbol
type Branded<T, Name extends string> = T & { readonly [brand]: Name }

/** An address as the device sees it, 64 bits. */
export type Iova = Branded<bigint, 'iova'>
/** An address in the memory of this process (`user_va` in iommufd.h), 64 bits. */
export type Vaddr = Branded<bigint, 'vaddr'>

/** What an fd of a kernel refers to; the requests that it takes follow from it. */
export type FdKind = 'container' | 'group' | 'device' | 'dataFd' | 'iommufd'
/** A file descriptor of a known kind. */
export type Fd<Kind extends FdKind> = number & { readonly [fdKind]: Kind }
/** An open /dev/vfio/vfio: a type1 IOMMU. */
export type ContainerFd = Fd<'container'>
/** An open /dev/vfio/GROUP. */
export type GroupFd = Fd<'group'>
/** A device that a group or a cdev gave out. */
export type DeviceFd = Fd<'device'>
/** One data transfer session of migration protocol v2. */
export type DataFd = Fd<'dataFd'>
/** An open /dev/iommu. */
export type Iommufd = Fd<'iommufd'>

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

/** The range of `length` bytes from an address on; at least one byte, and not past 2^64. */
export const rangeOf = (start: Iova, length: bigint): IovaRange => ({
  start,
  last: iova(start + length - 1n),
})

/** Bytes of a range. */
export const lengthOf = ({ start, last }: IovaRange): bigint => last - start + 1n

/** `0x1000`: how every address and length reads in messages and logs. */
export const hex = (value: bigint | number): string => `0x${value.toString(16)}`

/** `0x1000..0x1fff`: both ends are inside. */
export const rangeText = ({ start, last }: IovaRange): string => `${hex(start)}..${hex(last)}`
