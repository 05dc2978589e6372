/** What every command works with: a connection, an output, and the wish of the user to stop. */
import type { Command } from 'commander'
import type { Patience } from '../client/calls.ts'
import type { VfiodClient } from '../client/client.ts'
import { type ConnectionOptions, connectTo, keepLease, placeOf } from './connection.ts'
import { CommandDeadline, DEFAULT_TIMEOUT_MS } from './deadline.ts'
import { Output } from './output.ts'

export interface GlobalOptions extends ConnectionOptions {
  readonly json?: boolean
  /** Milliseconds; 0 for no limit. */
  readonly timeout?: number
  readonly vfToken?: string
}

export interface CommandSession {
  readonly client: VfiodClient
  /** What the client has as well, for calls on its channel that are not vfiod's. */
  readonly patience: Patience
  readonly output: Output
  /** With which devices are opened; empty for none. */
  readonly vfToken: string
  /** Aborted by Ctrl-C, SIGTERM or the end of the terminal: calls end, and resources are released. */
  readonly signal: AbortSignal
}

/** The second Ctrl-C ends the process at once; the daemon then releases what it owned. */
const abortOnSignals = (): AbortSignal => {
  const abort = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(name, () => abort.abort())
  return abort.signal
}

/**
 * An action for commander: connects, works, and closes the connection in any case. The time-out is
 * for each call; for a command that moves the state of a device, for the first one.
 */
export const action = <Args extends unknown[]>(
  work: (session: CommandSession, ...args: Args) => Promise<void>,
  { isTransfer = false }: { readonly isTransfer?: boolean } = {},
) =>
  async function (this: Command, ...args: [...Args, Command]): Promise<void> {
    const options = this.optsWithGlobals<GlobalOptions>()
    const { timeout: ms = DEFAULT_TIMEOUT_MS } = options
    const deadline = new CommandDeadline({ ms, isForFirst: isTransfer })
    const client = connectTo(options, deadline)
    const signal = abortOnSignals()
    signal.addEventListener('abort', () => deadline.renew(), { once: true })
    const output = new Output({ isJson: options.json === true })
    const done = new AbortController()
    try {
      const own = args.slice(0, -1) as unknown as Args
      if (options.address !== undefined) keepLease(client, done.signal).catch(() => {})
      const { vfToken = process.env.VFIOD_VF_TOKEN ?? '' } = options
      await work({ client, patience: deadline, output, vfToken, signal }, ...own)
    } catch (error) {
      throw deadline.explained(error, placeOf(options))
    } finally {
      done.abort()
      client.close()
    }
  }
