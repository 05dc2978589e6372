/** What every step has: a client of the daemon, its socket for other clients, and the narrator. */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { VfiodClient } from '../client/client.ts'
import type { Narrator } from './narrator.ts'

export interface Stage {
  readonly client: VfiodClient
  readonly socket: string
  readonly tell: Narrator
}

/** Another client: a separate process, so the daemon identifies it as another owner. */
export interface OtherClient {
  readonly pid: number
  /** What it has to say, once. */
  readonly answer: Promise<Record<string, string>>
  /** Ends it as kill -9 does; resolves when it is gone. */
  kill(): Promise<void>
  /** Lets it end by itself. */
  dismiss(): Promise<void>
}

/** Starts a program of src/demo/clients. It says one line of JSON, and ends when stdin does. */
export const startClient = (
  { socket }: Stage,
  program: 'owner' | 'trespasser',
  ...args: readonly string[]
): OtherClient => {
  const path = fileURLToPath(new URL(`./clients/${program}.js`, import.meta.url))
  const child = spawn(process.execPath, [path, socket, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const answer = new Promise<Record<string, string>>((resolve, reject) => {
    createInterface(child.stdout).once('line', (line) => resolve(JSON.parse(line)))
    child.once('exit', () => reject(new Error(`the ${program} ended without a word`)))
  })
  return {
    pid: child.pid ?? 0,
    answer,
    kill: () => {
      child.kill('SIGKILL')
      return ended
    },
    dismiss: () => {
      child.stdin.end()
      return ended
    },
  }
}
