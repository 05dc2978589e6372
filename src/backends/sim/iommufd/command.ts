/**
 * The general format of iommufd.h: a request takes a struct that begins with its own size. Shorter
 * than the first version is EINVAL; longer is fine as long as the kernel need not know the tail.
 */

import type { Ioctl } from '../../../abi/ioctl.ts'
import { dataView, type Fields, type Struct, type Values } from '../../../abi/layout.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg } from '../../../kernel/port.ts'
import { argAfter, argBytes, copyOut } from '../core/user-memory.ts'
import type { Answer, Caller } from '../file/open-file.ts'
import type { IommufdContext } from './context.ts'

/** One request that is being executed. */
export interface Command<F extends Fields> {
  readonly context: IommufdContext
  readonly caller: Caller
  readonly arg: IoctlArg
  /** What the caller filled in; `respond` writes it back. */
  readonly cmd: Values<F>
  respond(): number
}

/** How a request is decoded and executed. */
export interface Operation {
  readonly request: number
  /** The first kernel that knows it. */
  readonly since: `${number}.${number}`
  run(context: IommufdContext, caller: Caller, arg: IoctlArg): Answer
}

/** Up to the first byte that is not zero: whether there is memory behind it is not looked at. */
const checkTail = (arg: IoctlArg, from: number, to: number): number => {
  for (let at = from; at < to; at++) {
    const byte = argBytes(argAfter(arg, at), 1)?.[0]
    if (byte !== 0) return byte === undefined ? -ERRNO.EFAULT : -ERRNO.E2BIG
  }
  return 0
}

export const operation = <F extends Fields>(
  { number }: Ioctl<'iommufd'>,
  since: `${number}.${number}`,
  codec: Struct<F>,
  /** The bytes that the first version of the struct had. */
  min: number,
  execute: (command: Command<F>) => Answer,
): Operation => ({
  request: number,
  since,
  run: (context, caller, arg) => {
    const head = argBytes(arg, 4)
    if (head === undefined) return -ERRNO.EFAULT
    const userSize = dataView(head).getUint32(0, true)
    if (userSize < min) return -ERRNO.EINVAL
    const tail = checkTail(arg, codec.size, userSize)
    if (tail < 0) return tail
    const bytes = argBytes(arg, Math.min(userSize, codec.size))
    if (bytes === undefined) return -ERRNO.EFAULT

    const whole = new Uint8Array(codec.size)
    whole.set(bytes)
    const cmd = codec.decode(whole)
    const respond = (): number =>
      copyOut(arg, codec.encode(cmd as Partial<Values<F>>), Math.min(userSize, codec.size))
    return execute({ context, caller, arg, cmd, respond })
  },
})
