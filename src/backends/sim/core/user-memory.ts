/**
 * copy_from_user and copy_to_user: the argument of an ioctl, and the addresses inside it. What is
 * not memory of the caller is -EFAULT.
 */

import type { FieldType, Struct, Values } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { bytesAt } from '../../../os/memory.ts'

/** Where user space ends on x86-64: access_ok() refuses what reaches beyond. */
const TASK_SIZE_MAX = 0x7fff_ffff_f000n

export const accessOk = (address: bigint, length: bigint): boolean =>
  length <= TASK_SIZE_MAX && address <= TASK_SIZE_MAX - length

/** `length` bytes at an address in the caller's memory, or undefined. */
export const userBytes = (address: bigint, length: number): Uint8Array | undefined => {
  if (length === 0) return new Uint8Array(0)
  return address !== 0n && accessOk(address, BigInt(length)) ? bytesAt(address, length) : undefined
}

/** The first `length` bytes that an ioctl's argument points to, or undefined. */
export const argBytes = (arg: IoctlArg, length: number): Uint8Array | undefined => {
  if (arg instanceof Uint8Array) return arg.length >= length ? arg.subarray(0, length) : undefined
  return arg === undefined ? undefined : userBytes(BigInt(arg), length)
}

/** A struct of which the kernel asks for the first `min` bytes; the rest reads as zero. */
export const copyIn = <F extends Readonly<Record<string, FieldType>>>(
  codec: Struct<F>,
  arg: IoctlArg,
  min: number,
): Values<F> | undefined => {
  const bytes = argBytes(arg, min)
  if (bytes === undefined) return undefined
  const whole = new Uint8Array(codec.size)
  whole.set(bytes)
  return codec.decode(whole)
}

/** Writes the first `length` bytes of `from` back to the argument: 0 or -EFAULT. */
export const copyOut = (arg: IoctlArg, from: Uint8Array, length = from.length): number => {
  const bytes = argBytes(arg, length)
  if (bytes === undefined) return -ERRNO.EFAULT
  bytes.set(from.subarray(0, length))
  return 0
}

/** The argument from `offset` on, where a payload follows a header. */
export const argAfter = (arg: IoctlArg, offset: number): IoctlArg => {
  if (arg instanceof Uint8Array) return arg.subarray(Math.min(offset, arg.length))
  return arg === undefined ? undefined : arg + offset
}
