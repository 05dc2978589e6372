/** A daemon of its own process on the simulator, started from a configuration file. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'smol-toml'

const MAIN = fileURLToPath(new URL('../../dist/daemon/main.js', import.meta.url))

export type LogLine = Readonly<Record<string, unknown>>

/** Wait until something holds, looking again and again; the test's timeout is the bound. */
export const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
}

export class DaemonProcess {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfiod-daemon-'))
  readonly socket = join(this.directory, 'vfiod.sock')
  readonly #identity: { readonly uid?: number; readonly gid?: number }
  #child: ChildProcess | undefined
  #stdout = ''
  #stderr = ''

  /** Of another user where one is named. */
  constructor({ uid }: { readonly uid?: number } = {}) {
    this.#identity = uid === undefined ? {} : { uid, gid: uid }
  }

  /** A file beside the socket; answers its path. */
  write(name: string, text: string): string {
    const path = join(this.directory, name)
    writeFileSync(path, text)
    return path
  }

  /** Run it until it ends; answers the exit code. */
  run(config: Readonly<Record<string, unknown>>): Promise<number | null> {
    const file = this.write(
      'vfiod.toml',
      stringify({ backend: 'sim', socket: this.socket, ...config }),
    )
    const child = spawn(process.execPath, [MAIN, '--config', file], this.#identity)
    child.stdout.on('data', (bytes) => {
      this.#stdout += bytes
    })
    child.stderr.on('data', (bytes) => {
      this.#stderr += bytes
    })
    this.#child = child
    return once(child, 'close').then(([code]) => code)
  }

  /** Run it until it is ready. */
  async start(config: Readonly<Record<string, unknown>>): Promise<void> {
    const ended = this.run(config).then((code) => {
      throw new Error(`vfiod ended with ${code}: ${this.#stderr}`)
    })
    // It ends when the test does; that is no failure by then.
    ended.catch(() => {})
    await Promise.race([this.isServing(), ended])
    // Another stream, with the port in it.
    await until(() => this.logged('ready').length > 0)
  }

  /** Resolves when it says on stdout that it is ready. */
  isServing(): Promise<void> {
    return until(() => this.#stdout.includes('vfiod: ready on '))
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name)
  }

  get stderr(): string {
    return this.#stderr
  }

  /** The lines that the log has so far and that have this message. */
  logged(message: string): LogLine[] {
    return this.#stderr
      .split('\n')
      .filter((line) => line.endsWith('}'))
      .map((line) => JSON.parse(line) as LogLine)
      .filter(({ msg }) => msg === message)
  }

  async remove(): Promise<void> {
    const child = this.#child
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    rmSync(this.directory, { recursive: true })
  }
}
