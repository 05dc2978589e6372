/** Where the state of a device is read from: a file, a pipe, or standard input for `-`. */
import { type FileHandle, open } from 'node:fs/promises'
import { fileError } from './failure.ts'

export interface StateInput {
  /** In bytes, and 0 where it is not known before the end. */
  readonly size: number
  /** Fills `into` from its start; answers how many bytes, and 0 at the end. */
  read(into: Buffer): Promise<number>
  close(): Promise<void>
}

const orFileError = async <Result>(path: string, work: Promise<Result>): Promise<Result> => {
  try {
    return await work
  } catch (error) {
    throw fileError('read', path, error)
  }
}

export const openInput = async (path: string): Promise<StateInput> => {
  if (path === '-') return standardInput()
  const handle: FileHandle = await orFileError(path, open(path, 'r'))
  const { size } = await handle.stat()
  return {
    size,
    read: async (into) => (await orFileError(path, handle.read(into))).bytesRead,
    close: () => handle.close(),
  }
}

/** Reads of a pipe are short, so they are collected into messages of full length. */
const standardInput = (): StateInput => {
  const pieces = process.stdin[Symbol.asyncIterator]()
  let rest = Buffer.alloc(0)
  const fill = async (into: Buffer): Promise<number> => {
    let filled = 0
    while (filled < into.length) {
      if (rest.length === 0) {
        const { value, done } = await pieces.next()
        if (done === true) break
        rest = value
      }
      const copied = rest.copy(into, filled)
      rest = rest.subarray(copied)
      filled += copied
    }
    return filled
  }
  return {
    size: 0,
    read: (into) => orFileError('-', fill(into)),
    close: async () => {
      process.stdin.destroy()
    },
  }
}
