/** Where remote clients are served, and by which certificates: complete, or not at all. */
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import type { Certificates, RemoteOptions } from '../api/transport/remote-listener.ts'
import type { Config } from './config.ts'
import { ConfigError } from './config-error.ts'

const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigError(`Cannot read ${path}: ${(error as NodeJS.ErrnoException).code}`)
  }
}

/** The certificates that the files hold now; a ConfigError when they do not fit together. */
export function certificatesOf(config: Config): Certificates {
  const { tls_ca: ca, tls_cert: cert, tls_key: key } = config
  if (ca === undefined || cert === undefined || key === undefined)
    throw new ConfigError(
      'Cannot serve remote clients: tls_ca, tls_cert and tls_key are all needed',
    )
  const certificates = { ca: read(ca), cert: read(cert), key: read(key) }
  try {
    // createSecureContext takes any text for a list of authorities; the empty one as well.
    void new X509Certificate(certificates.ca)
    createSecureContext({ ...certificates, minVersion: 'TLSv1.3' })
  } catch (error) {
    throw new ConfigError(`Cannot use the certificates: ${(error as Error).message}`)
  }
  return certificates
}

export function remoteOptionsOf(config: Config): RemoteOptions | undefined {
  if (config.listen === undefined) return undefined
  const { host, port } = addressOf(config.listen)
  return { host, port, certificates: certificatesOf(config), leaseMs: config.lease_ms }
}

/** `0.0.0.0:7443`, `[::1]:7443` */
function addressOf(listen: string): { host: string; port: number } {
  const parts = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(listen)
  const host = parts?.[1] ?? parts?.[2]
  const port = Number(parts?.[3])
  if (host !== undefined && port <= 65535) return { host, port }
  throw new ConfigError(`Cannot listen on "${listen}": HOST:PORT is needed`)
}
