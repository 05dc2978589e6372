/** Where remote clients are served, and by which certificates: complete, or not at all. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { RemoteOptions } from '../api/transport/remote-listener.ts'
import type { Certificates } from '../link/records.ts'
import type { Config } from './config.ts'
import { ConfigError } from './config-error.ts'
import { readTrusted } from './trusted-file.ts'

/** The certificates that the files hold now; a ConfigError when they do not fit together. */
export function certificatesOf(config: Config): Certificates {
  const { tls_ca: ca, tls_cert: cert, tls_key: key, tls_crl: crl } = config
  if (ca === undefined || cert === undefined || key === undefined)
    throw new ConfigError(
      'Cannot serve remote clients: tls_ca, tls_cert and tls_key are all needed',
    )
  const certificates = {
    ca: readTrusted(ca),
    cert: readTrusted(cert),
    key: readTrusted(key),
    ...(crl !== undefined && { crl: readTrusted(crl) }),
  }
  try {
    // createSecureContext takes any text for a list of authorities, and an empty one for no certificate.
    void new X509Certificate(certificates.ca)
    const own = new X509Certificate(certificates.cert)
    if (!own.checkPrivateKey(createPrivateKey(certificates.key)))
      throw new Error('tls_key is not the key of tls_cert')
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
