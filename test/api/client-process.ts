/** A client in a process of its own, of any user, on the compiled client (dist). */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Ticket } from '../../src/proto/vfiod/v1/Ticket.ts'

const PROGRAM = fileURLToPath(new URL('client-process.mjs', import.meta.url))

export interface Answer {
  // biome-ignore lint/suspicious/noExplicitAny: whatever the call answers, as JSON.
  readonly result?: any
  readonly error?: { readonly status: string; readonly reason: string; readonly message: string }
}

/** Whether tests may start processes of other users. */
export const isRoot = process.getuid?.() === 0

export class ClientProcess {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>

  constructor(socket: string, user: { readonly uid?: number; readonly gid?: number } = {}) {
    this.#child = spawn(process.execPath, [PROGRAM, socket], {
      ...user,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const { stdout } = this.#child
    if (stdout === null) throw new Error('no output of the child')
    this.#answers = createInterface({ input: stdout })[Symbol.asyncIterator]()
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** `call('memory', 'listMemory', {})`; commands to one process are answered one after another. */
  call(
    service: string,
    method: string,
    request: object = {},
    options: { readonly headers?: Readonly<Record<string, string>>; readonly on?: number } = {},
  ): Promise<Answer> {
    return this.#command({ command: 'call', service, method, request, ...options })
  }

  receiveFds(ticket: Ticket): Promise<Answer> {
    return this.#command({ command: 'receiveFds', ticket })
  }

  sendFds(ticket: Ticket, fds: readonly number[]): Promise<Answer> {
    return this.#command({ command: 'sendFds', ticket, fds })
  }

  disconnect(on = 0): Promise<Answer> {
    return this.#command({ command: 'disconnect', on })
  }

  /** The process drops its user and groups for these; only root may. */
  become(id: number): Promise<Answer> {
    return this.#command({ command: 'become', id })
  }

  upload(name: string): Promise<Answer> {
    return this.#command({ command: 'upload', name })
  }

  /** The process becomes another image; it goes on running and answers nothing more. */
  exec(): void {
    this.#child.stdin?.write(`${JSON.stringify({ command: 'exec' })}\n`)
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exit
  }

  async #command(command: object): Promise<Answer> {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`)
    const { value, done } = await this.#answers.next()
    if (done === true) throw new Error(`the client process ${this.pid} has ended`)
    return JSON.parse(value)
  }
}
