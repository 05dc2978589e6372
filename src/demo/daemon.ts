/** The daemon of the demo: a process on a simulated machine, with its socket in a temporary folder. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const VFIOD = fileURLToPath(new URL('../../bin/vfiod', import.meta.url))
/** It drains, releases and ends in well under a second; past this it is killed. */
const STOP_MS = 10_000
const LOG_LINES = 20

export class Daemon {
  readonly socket: string
  /** Resolves when it serves. */
  readonly ready: Promise<void>
  readonly #folder: string
  readonly #child: ChildProcess
  readonly #ended: Promise<number | null>
  #log = ''

  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'vfiod-demo-'))
    this.socket = join(this.#folder, 'vfiod.sock')
    this.#child = spawn(VFIOD, ['--sim', '--socket', this.socket], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#ended = new Promise((resolve) => this.#child.once('close', (code) => resolve(code)))
    this.#child.stderr?.on('data', (text) => {
      this.#log += text
    })
    this.ready = new Promise((resolve, reject) => {
      this.#child.stdout?.on('data', (text) => {
        if (String(text).includes(`vfiod: ready on ${this.socket}`)) resolve()
      })
      void this.#ended.then((code) => reject(new Error(`the daemon ended with ${code}`)))
    })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** The end of its log, for when something went wrong. */
  lastLog(): string {
    return this.#log.trimEnd().split('\n').slice(-LOG_LINES).join('\n')
  }

  /** Tells it to end, and answers its exit code; null when it had to be killed. */
  async stop(): Promise<number | null> {
    this.#child.kill('SIGTERM')
    const kill = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS)
    const code = await this.#ended
    clearTimeout(kill)
    this.#removeFolder()
    return code
  }

  /** Ends it at once, if it still runs. */
  kill(): void {
    this.#child.kill('SIGKILL')
    this.#removeFolder()
  }

  #removeFolder(): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
