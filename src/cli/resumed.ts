/** A transfer that goes on when its connection breaks: the daemon lost nothing, so nothing starts again. */
import { setTimeout } from 'node:timers/promises'
import { RpcError } from '../client/rpc-error.ts'

const TRIES = 5
const PAUSE_MS = 500

/** A connection that broke has no reason of the daemon; one that it has not noticed yet is busy. */
const isPassing = (error: unknown): boolean =>
  error instanceof RpcError &&
  ((error.status === 'UNAVAILABLE' && error.reason === '') || error.reason === 'SESSION_BUSY')

/** Runs one part of a transfer until it succeeds, or fails for another reason than its connection. */
export const resumed = async <Result>(
  signal: AbortSignal,
  part: () => Promise<Result>,
): Promise<Result> => {
  for (let left = TRIES; ; left -= 1) {
    try {
      return await part()
    } catch (error) {
      if (left === 0 || signal.aborted || !isPassing(error)) throw error
      await setTimeout(PAUSE_MS, undefined, { signal }).catch(() => undefined)
    }
  }
}
