/** systemd as far as fronts need it: a socket, and the program of vfiod-front@.service for each connection. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { listenSeqpacket, type SeqpacketListener } from '../../src/os/fd-passing.ts'
import { F_GETFL, O_NONBLOCK, sys } from '../../src/os/libc.ts'

const PROGRAM = fileURLToPath(new URL('./front-unit.mjs', import.meta.url))
const F_SETFL = 4

/** A started unit. */
export class FrontUnit {
  readonly #child: ChildProcess
  readonly ended: Promise<unknown>

  constructor(connection: number) {
    // As systemd passes it: the program waits where it reads.
    sys.fcntl(connection, F_SETFL, sys.fcntl(connection, F_GETFL) & ~O_NONBLOCK)
    this.#child = spawn(process.execPath, [PROGRAM], {
      stdio: ['ignore', 'ignore', 'inherit', connection],
      env: { PATH: process.env.PATH, VFIOD_NODE: process.execPath },
    })
    this.ended = once(this.#child, 'close')
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  /** The pid of the front itself, once it runs. */
  get front(): number | undefined {
    const { pid } = this.#child
    try {
      return (
        readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
          .split(' ')
          .filter((text) => text !== '')
          .map(Number)
          // Who is not root cannot read the link to the program of a process without rights.
          .find((child) =>
            readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('/front/main.js'),
          )
      )
    } catch {
      return undefined
    }
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

export class FrontSocket {
  readonly units: FrontUnit[] = []
  /** Accepted where no program is started. */
  readonly accepted: number[] = []
  readonly #listener: SeqpacketListener

  constructor(path: string, options: { readonly startsPrograms?: boolean } = {}) {
    const listener = listenSeqpacket(path)
    if (typeof listener === 'number') throw new Error(`Cannot listen at ${path}: ${listener}`)
    this.#listener = listener
    listener.onConnection((connection) => {
      if (options.startsPrograms === false) {
        this.accepted.push(connection.fd)
        return
      }
      this.units.push(new FrontUnit(connection.fd))
      connection.close()
    })
  }

  get running(): FrontUnit[] {
    return this.units.filter(({ hasEnded }) => !hasEnded)
  }

  /** Nobody listens any more, and what runs is left alone. */
  stopListening(): void {
    this.#listener.close()
  }

  async close(): Promise<void> {
    this.#listener.close()
    for (const fd of this.accepted.splice(0)) sys.closeSync(fd)
    for (const unit of this.running) unit.kill()
    await Promise.all(this.units.map(({ ended }) => ended))
  }
}
