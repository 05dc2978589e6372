/** A helper in a process of its own, as systemd would run it, at a socket that it is told. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { HelperLink } from '../../src/helper/helper-link.ts'
import type { Serves } from '../../src/helper/requests.ts'

export const VERSION: string = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
).version

const MAIN = fileURLToPath(new URL('../../dist/helper/main.js', import.meta.url))

export class HelperProcess {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfiod-helper-'))
  readonly socket = join(this.directory, 'helper.sock')
  readonly serves: Serves
  #child: ChildProcess | undefined
  #said = ''

  constructor(serves: Serves) {
    this.serves = serves
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** What it has written to stderr. */
  get said(): string {
    return this.#said
  }

  /** Fds that it has open. */
  openFds(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length
  }

  async start(): Promise<void> {
    rmSync(this.socket, { force: true })
    const child = spawn(process.execPath, [MAIN, this.serves, '--socket', this.socket])
    this.#child = child
    child.stderr.on('data', (bytes) => {
      this.#said += bytes
    })
    await once(child.stdout, 'data')
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name)
  }

  async kill(): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  async remove(): Promise<void> {
    await this.kill()
    rmSync(this.directory, { recursive: true })
  }
}

/** A link as the daemon has it. */
export const linkTo = (path: string, serves: Serves): HelperLink =>
  new HelperLink({ path, serves, version: VERSION, log: () => undefined })
