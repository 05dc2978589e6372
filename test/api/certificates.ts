/** Certificates for tests, made by openssl: an authority, and whoever it vouches for. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Certificates } from '../../src/api/transport/remote-listener.ts'

const hasOpenssl = spawnSync('openssl', ['version']).status === 0

/** Whether tests must do without certificates; never in CI, which installs what they need. */
export const lacksOpenssl = !hasOpenssl && !process.env.CI

export class Authority {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfiod-ca-'))
  #issued = 0

  constructor() {
    this.#openssl('genpkey', '-algorithm', 'ed25519', '-out', 'ca.key')
    this.#openssl('req', '-x509', '-new', '-key', 'ca.key', '-subj', '/CN=test', '-out', 'ca.pem')
  }

  /** A certificate for these subject alternative names: `URI:spiffe://host-b`, `DNS:localhost`. */
  issue(subjectAltName: string): Certificates {
    this.#issued += 1
    const name = `issued-${this.#issued}`
    writeFileSync(
      join(this.directory, `${name}.cnf`),
      subjectAltName === '' ? '' : `subjectAltName=${subjectAltName}\n`,
    )
    this.#openssl('genpkey', '-algorithm', 'ed25519', '-out', `${name}.key`)
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
