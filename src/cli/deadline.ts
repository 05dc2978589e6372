/** How long a command waits for the daemon, and what it says when that was not enough. */
import type { Patience } from '../client/calls.ts'
import { RpcError } from '../client/rpc-error.ts'
import { CliError, EXIT_NO_ANSWER } from './failure.ts'

export const DEFAULT_TIMEOUT_MS = 10_000

/** `10 s`, `0.5 s`. */
const seconds = (ms: number): string => `${ms / 1000} s`

export class CommandDeadline implements Patience {
  readonly #ms: number
  #isForFirst: boolean
  #hasAnswered = false

  /** For each call, or for the first alone: what follows it takes as long as the device takes. */
  constructor(options: { readonly ms: number; readonly isForFirst: boolean }) {
    this.#ms = options.ms
    this.#isForFirst = options.isForFirst
  }

  answerMs(): number | undefined {
    return this.#ms === 0 || (this.#isForFirst && this.#hasAnswered) ? undefined : this.#ms
  }

  answered(): void {
    this.#hasAnswered = true
  }

  /** From now on for each call: what gives back what a command took should not wait for ever. */
  renew(): void {
    this.#isForFirst = false
  }

  /** The same error, or what it means when it is a call that was not answered in time. */
  explained(error: unknown, place: string): unknown {
    if (!(error instanceof RpcError)) return error
    const { status, reason, method } = error
    if (status !== 'DEADLINE_EXCEEDED' || reason !== '') return error
    const found = this.#hasAnswered
      ? `the daemon on ${place} answered before, and has not answered ${method} in ${seconds(this.#ms)}`
      : `the daemon on ${place} ${silence(error, place)} (${seconds(this.#ms)})`
    const note = this.#hasAnswered
      ? 'The daemon may still work on the call: --timeout sets how long to wait, and 0 waits without end.'
      : 'Check whether it is stopped or overloaded; --timeout sets how long to wait.'
    return new CliError(`No answer: ${found}`, { note, exitCode: EXIT_NO_ANSWER })
  }
}

/** A local connection is made by the kernel; of a remote one grpc-js names the other end. */
const silence = ({ message }: RpcError, place: string): string =>
  place.startsWith('/') || message.includes('remote_addr=')
    ? 'accepts connections and does not answer'
    : 'cannot be connected to'
