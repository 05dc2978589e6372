/** What every command works with: a connection, an output, and the wish of the user to stop. */
import type { Command } from 'commander'
import type { VfiodClient } from '../client/client.ts'
import { type ConnectionOptions, connectTo, keepLease } from './connection.ts'
import { Output } from './output.ts'

export interface GlobalOptions extends ConnectionOptions {
  readonly json?: boolean
}

export interface Session {
  readonly client: VfiodClient
  readonly output: Output
  /** Aborted by Ctrl-C, SIGTERM or the end of the terminal: calls end, and what was taken is given back. */
  readonly signal: AbortSignal
}

/** The second Ctrl-C ends the process at once; the daemon then releases what it owned. */
const abortOnSignals = (): AbortSignal => {
  const abort = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(name, () => abort.abort())
  return abort.signal
}

/** An action for commander: connects, works, and closes the connection in any case. */
export const action = <Args extends unknown[]>(
  work: (session: Session, ...args: Args) => Promise<void>,
) =>
  async function (this: Command, ...args: [...Args, Command]): Promise<void> {
    const options = this.optsWithGlobals<GlobalOptions>()
    const client = connectTo(options)
    const output = new Output({ isJson: options.json === true })
    const done = new AbortController()
    try {
      const own = args.slice(0, -1) as unknown as Args
      if (options.address !== undefined) keepLease(client, done.signal).catch(() => {})
      await work({ client, output, signal: abortOnSignals() }, ...own)
    } finally {
      done.abort()
      client.close()
    }
  }
