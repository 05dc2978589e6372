/** Certificates for tests, made by openssl: an authority, and whoever it vouches for. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Certificates } from '../../src/link/records.ts'

const hasOpenssl = spawnSync('openssl', ['version']).status === 0

/** Whether tests must do without certificates; never in CI, which installs what they need. */
export const lacksOpenssl = !hasOpenssl && !process.env.CI

const ED25519 = ['-algorithm', 'ed25519']
export const rsa = (bits: number): readonly string[] => [
  ...['-algorithm', 'RSA', '-pkeyopt', `rsa_keygen_bits:${bits}`],
]

const CA_CONFIG = `[ca]
default_ca = only
[only]
database = index
default_md = default
`

export class Authority {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfiod-ca-'))
  #issued = 0

  constructor() {
    this.#openssl('genpkey', '-algorithm', 'ed25519', '-out', 'ca.key')
    this.#openssl('req', '-x509', '-new', '-key', 'ca.key', '-subj', '/CN=test', '-out', 'ca.pem')
  }

  /** A certificate for these subject alternative names: `URI:spiffe://host-b`, `DNS:localhost`. */
  issue(subjectAltName: string, algorithm: readonly string[] = ED25519): Certificates {
    this.#issued += 1
    const name = `issued-${this.#issued}`
    writeFileSync(
      join(this.directory, `${name}.cnf`),
      subjectAltName === '' ? '' : `subjectAltName=${subjectAltName}\n`,
    )
    this.#openssl('genpkey', ...algorithm, '-out', `${name}.key`)
    const subject = ['-new', '-key', `${name}.key`, '-subj', '/CN=anybody', '-out', `${name}.csr`]
    this.#openssl('req', ...subject)
    const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', `${name}.pem`]
    this.#openssl('x509', '-req', '-in', `${name}.csr`, '-extfile', `${name}.cnf`, ...signed)
    return {
      ca: this.#read('ca.pem'),
      cert: this.#read(`${name}.pem`),
      key: this.#read(`${name}.key`),
    }
  }

  /** A list of revoked certificates that names these. */
  revoke(...certificates: readonly Certificates[]): string {
    writeFileSync(join(this.directory, 'index'), '')
    writeFileSync(join(this.directory, 'ca.cnf'), CA_CONFIG)
    const ca = ['ca', '-config', 'ca.cnf', '-keyfile', 'ca.key', '-cert', 'ca.pem']
    for (const [n, { cert }] of certificates.entries()) {
      writeFileSync(join(this.directory, `revoked-${n}.pem`), cert)
      this.#openssl(...ca, '-revoke', `revoked-${n}.pem`)
    }
    this.#openssl(...ca, '-gencrl', '-crldays', '30', '-out', 'crl.pem')
    return this.#read('crl.pem')
  }

  remove(): void {
    rmSync(this.directory, { recursive: true })
  }

  #read(file: string): string {
    return readFileSync(join(this.directory, file), 'utf8')
  }

  #openssl(...args: readonly string[]): void {
    execFileSync('openssl', args, { cwd: this.directory, stdio: ['ignore', 'ignore', 'pipe'] })
  }
}
