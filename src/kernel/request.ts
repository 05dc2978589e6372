/**
 * One request on one fd: encoded with the struct that the request takes, refused on a negative
 * answer, and decoded. The compiler takes only an fd of the request's kind. An answer above zero is
 * a success only where the request says so.
 */

import type { Argument, Ioctl, Success } from '../abi/ioctl.ts'
import { dataView, type Fields, Struct, type Values } from '../abi/layout.ts'
import type { Fd, FdKind } from '../base/units.ts'
import type { IoctlArg, Kernel } from './port.ts'
import { refusal, tooFew, unexpected, wasErrno } from './refusal.ts'

/** What the caller gives: fields of the struct (the rest is zero), a number, a name, or nothing. */
export type Given<Arg extends Argument> =
  Arg extends Struct<infer F>
    ? Partial<Values<F>>
    : Arg extends 'value' | 'fd'
      ? number
      : Arg extends 'name'
        ? string
        : Arg extends 'none'
          ? undefined
          : never

/** What comes back: the struct as the kernel left it, an fd, a number, or nothing. */
export type Got<Arg extends Argument, Out extends Success> =
  Arg extends Struct<infer F>
    ? Values<F>
    : Out extends FdKind
      ? Fd<Out>
      : Out extends 'number'
        ? number
        : undefined

const NO_TAIL = new Uint8Array()

/**
 * Make a request, or throw the refusal that its answer stands for. The size that the struct begins
 * with (argsz, or size in iommufd.h) is filled in.
 *
 * @param act what is tried, to follow "Cannot": `map iova 0x1000..0x1fff`
 * @param tail bytes behind the struct, in and out: they hold afterwards what the kernel left there
 */
export async function request<
  Kind extends FdKind,
  const Arg extends Argument,
  const Out extends Success,
>(
  kernel: Kernel,
  fd: Fd<NoInfer<Kind>>,
  call: Ioctl<Kind, Arg, Out>,
  given: NoInfer<Given<Arg>>,
  act: string,
  tail: Uint8Array = NO_TAIL,
): Promise<Got<Arg, Out>> {
  const arg = encode(call, given, tail)
  const answer = await kernel.ioctl(fd, call.number, arg)
  if (answer < 0) throw refusal(call.cName, answer, act)
  if (answer > 0 && call.answer === 'available') {
    const { count } = given as { readonly count?: number }
    throw tooFew(call.cName, act, { asked: count ?? 0, available: answer })
  }
  if (answer > 0 && call.answer === 'zero') throw unexpected(call.cName, answer, act)
  if (!(call.argument instanceof Struct)) {
    return (call.answer === 'zero' ? undefined : answer) as Got<Arg, Out>
  }
  const bytes = arg as Uint8Array
  tail.set(bytes.subarray(call.argument.size))
  return call.argument.decode(bytes) as Got<Arg, Out>
}

/**
 * A request whose answer has no fixed length, made twice where it must be: the first answer says in
 * argsz how much room the second one needs. Answers the struct and everything behind it.
 */
export async function requestWhole<Kind extends FdKind, F extends Fields>(
  kernel: Kernel,
  fd: Fd<NoInfer<Kind>>,
  call: Ioctl<Kind, Struct<F & { readonly argsz: 'u32' }>>,
  given: Partial<Values<F>>,
  act: string,
): Promise<Uint8Array> {
  const struct: Struct<F & { readonly argsz: 'u32' }> = call.argument
  let tail = NO_TAIL
  const ask = () => request(kernel, fd, call, given, act, tail)
  let values = await ask()
  const missing = values.argsz - struct.size
  if (missing > 0) {
    tail = new Uint8Array(missing)
    values = await ask()
  }
  const whole = struct.encode(values, tail.length)
  whole.set(tail, struct.size)
  return whole
}

/**
 * The same request under another name, that of a flag or a payload: what an errno means goes by
 * the name, and a flag changes the meaning.
 */
export const named = <Kind extends FdKind, Arg extends Argument, Out extends Success>(
  cName: string,
  call: Ioctl<Kind, Arg, Out>,
): Ioctl<Kind, Arg, Out> => ({ ...call, cName })

/** What a request answers, or undefined where the kernel says this one errno. */
export async function unless<T>(
  errno: 'EINVAL' | 'ENOTTY',
  answer: Promise<T>,
): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (wasErrno(error, errno)) return undefined
    throw error
  }
}

function encode<Arg extends Argument>(
  { argument, cName }: { readonly argument: Arg; readonly cName: string },
  given: Given<Arg>,
  tail: Uint8Array,
): IoctlArg {
  if (argument instanceof Struct) {
    const [sizeField] = Object.keys(argument.types)
    const values = { [`${sizeField}`]: argument.size + tail.length, ...(given as object) }
    const bytes = argument.encode(values, tail.length)
    bytes.set(tail, argument.size)
    return bytes
  }
  switch (argument) {
    case 'value':
      return given as number
    case 'fd': {
      const bytes = new Uint8Array(4)
      dataView(bytes).setInt32(0, given as number, true)
      return bytes
    }
    case 'name':
      return new TextEncoder().encode(`${given}\0`)
    case 'none':
      return undefined
    default:
      throw new TypeError(`the argument of ${cName} is not described`)
  }
}
