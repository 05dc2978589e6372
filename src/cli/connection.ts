/** How vfioctl reaches a daemon: by its socket, or on another host by mutual TLS and nothing less. */
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { credentials } from '@grpc/grpc-js'
import type { Patience } from '../client/calls.ts'
import { connect, DEFAULT_SOCKET, type VfiodClient } from '../client/client.ts'
import { CliError, fileError, usageError } from './failure.ts'

export interface ConnectionOptions {
  readonly socket?: string
  readonly address?: string
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

/** Where the daemon is, as messages name it. */
export const placeOf = ({ address, socket }: ConnectionOptions): string =>
  address ?? socket ?? process.env.VFIOD_SOCKET ?? DEFAULT_SOCKET

const read = (path: string): Buffer => {
  try {
    return readFileSync(path)
  } catch (error) {
    throw fileError('read', path, error)
  }
}

const remoteClient = (
  address: string,
  options: ConnectionOptions,
  patience: Patience,
): VfiodClient => {
  if (options.socket !== undefined)
    throw usageError('--address and --socket are two daemons; name one of them')
  if (!options.ca || !options.cert || !options.key)
    throw usageError('--address needs --ca, --cert and --key: the daemon takes no one without')
  const [ca, cert, key] = [read(options.ca), read(options.cert), read(options.key)]
  try {
    createSecureContext({ ca, cert, key })
  } catch (error) {
    throw new CliError(`Cannot use the certificates: ${(error as Error).message}`)
  }
  return connect({ address, patience, credentials: credentials.createSsl(ca, key, cert) })
}

export const connectTo = (options: ConnectionOptions, patience: Patience): VfiodClient => {
  const { address, ca, cert, key } = options
  if (address !== undefined) return remoteClient(address, options, patience)
  if ((ca ?? cert ?? key) !== undefined)
    throw usageError('--ca, --cert and --key are for a daemon on another host; add --address')
  return connect({ socket: placeOf(options), patience })
}

/** Renewed this many times before it would run out. */
const RENEWALS_PER_LEASE = 3

/**
 * What a client of another host owns lasts for a lease, and a long command makes few calls: this
 * renews the lease until the signal. A command that is refused says so itself, so this does not.
 */
export const keepLease = async (client: VfiodClient, signal: AbortSignal): Promise<void> => {
  while (!signal.aborted) {
    const { leaseMs } = await client.ownership.keepAlive({}, { signal })
    await new Promise((resolve) => {
      setTimeout(resolve, leaseMs / RENEWALS_PER_LEASE).unref()
    })
  }
}
