/** A simulated daemon of its own process that tells what it holds: fds, mappings, memory. */

import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fdsOf, until } from '../system/world.ts'

const MAIN = new URL('../../dist/daemon/main.js', import.meta.url).pathname
const PROBE = new URL('./probe.mjs', import.meta.url).pathname

/** VFIOD_SEED repeats a run; every failure names it. */
export const seed = Number(process.env.VFIOD_SEED ?? Math.floor(Math.random() * 2 ** 32))

/** `npm run soak`: the whole amounts instead of a sample. */
export const isLong = process.env.VFIOD_SOAK === '1'

export interface Held {
  /** Links of /proc/PID/fd, sorted. */
  readonly fds: readonly string[]
  /** Lines of /proc/PID/maps, and those of them that are shared memory of clients. */
  readonly maps: number
  readonly sharedMaps: number
  /** Bytes of heap and buffers after a collection, and resident ones. */
  readonly used: number
  readonly rss: number
}

export class SoakDaemon {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfiod-soak-'))
  readonly socket = join(this.directory, 'vfiod.sock')
  readonly fdSocket = join(this.directory, 'fds.sock')
  readonly child: ChildProcess
  #output = ''

  private constructor(config: string, policy: string, preloads: readonly string[]) {
    // Clients of other users reach the sockets.
    chmodSync(this.directory, 0o755)
    writeFileSync(join(this.directory, 'policy.toml'), policy)
    const file = join(this.directory, 'vfiod.toml')
    const own = `socket = "${this.socket}"\nsocket_mode = "0666"\nbackend = "sim"\n`
    const log = `policy = "${this.directory}/policy.toml"\n`
    writeFileSync(file, own + log + config)
    const imports = [PROBE, ...preloads].flatMap((path) => ['--import', path])
    const node = process.env.VFIOD_NODE ?? process.execPath
    const args = ['--expose-gc', ...imports, MAIN, '--config', file]
    this.child = spawn(node, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (bytes) => {
        this.#output += bytes
      })
    }
  }

  /** `preloads` are modules that are loaded before the daemon is. */
  static async start(
    config: string,
    policy: string,
    preloads: readonly string[] = [],
  ): Promise<SoakDaemon> {
    const daemon = new SoakDaemon(config, policy, preloads)
    await until(() => {
      if (daemon.child.exitCode !== null) throw new Error(daemon.#output)
      return daemon.#output.includes('vfiod: ready')
    })
    return daemon
  }

  get output(): string {
    return this.#output
  }

  get isAlive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  /** Lines of the log about mistakes of the daemon's own. */
  mistakes(): string[] {
    return this.#output.split('\n').filter((line) => /mistake|"BUG"|unhandled/i.test(line))
  }

  fds(): string[] {
    const pid = this.child.pid ?? 0
    const links = fdsOf(pid, readdirSync(`/proc/${pid}/fd`))
    // A socket or a pipe has another number each time it is made.
    return links.map((link) => link.replace(/:\[\d+\]$/, '')).sort()
  }

  async held(): Promise<Held> {
    const from = this.#output.length
    this.child.kill('SIGUSR2')
    const said = await until(() => /^probe (.*)$/m.exec(this.#output.slice(from))?.[1])
    const maps = readFileSync(`/proc/${this.child.pid}/maps`, 'utf8').trimEnd().split('\n')
    const sharedMaps = maps.filter((line) => line.includes('/memfd:')).length
    return { fds: this.fds(), maps: maps.length, sharedMaps, ...JSON.parse(said) }
  }

  async stop(): Promise<number | null> {
    this.child.kill('SIGTERM')
    await until(() => !this.isAlive)
    rmSync(this.directory, { recursive: true, force: true })
    return this.child.exitCode
  }
}
