/** Another process that owns things and does with them what it is told: owner.mjs. */

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

const PROGRAM = new URL('./owner.mjs', import.meta.url).pathname

export interface Answer {
  // biome-ignore lint/suspicious/noExplicitAny: whatever the call answers, as JSON.
  readonly result?: any
  readonly reason?: string
  readonly message?: string
}

/** A process that owns things; what it answers comes in the order of what it is told. */
export class Owner {
  readonly child: ChildProcess
  readonly #lines: AsyncIterator<string>

  /** With a token it adopts first; either way it then has something to say. */
  constructor(socket: string, ...token: readonly string[]) {
    const args = [PROGRAM, socket, ...token]
    this.child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    if (this.child.stdout === null) throw new Error('no output')
    this.#lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  async next(): Promise<Answer> {
    return JSON.parse((await this.#lines.next()).value)
  }

  tell(command: object): Promise<Answer> {
    this.child.stdin?.write(`${JSON.stringify(command)}\n`)
    return this.next()
  }
}
