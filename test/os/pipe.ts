/** A pipe whose reads sleep until something is written. */
import { bind, call } from '../../src/os/async-call.ts'

const pipeInto = bind('pipe', 'int', ['void *'])

/** The fds to read from and to write to; the caller's to close. */
export const pipe = (): [number, number] => {
  const ends = new Int32Array(2)
  if (call(pipeInto, new Uint8Array(ends.buffer)) < 0) throw new Error('no pipe')
  return [ends[0] as number, ends[1] as number]
}
