/** Runs the built vfioctl as a process, against a daemon on the simulator. */

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export const PROGRAM = fileURLToPath(new URL('../../dist/cli/vfioctl.js', import.meta.url))

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  /** Resolves when stdout has the text. */
  says(text: string): Promise<void>
  readonly outcome: Promise<Outcome>
  /** As Ctrl-C does. */
  interrupt(): void
  /** As kill -9 does, or with another signal. */
  kill(signal?: NodeJS.Signals): void
}

export interface RunOptions {
  readonly socket?: string | undefined
  readonly cwd?: string | undefined
  readonly env?: Readonly<Record<string, string>>
}

export const start = (
  args: readonly string[],
  { socket, cwd, env = {} }: RunOptions = {},
): Running => {
  const { VFIOD_SOCKET: _, ...inherited } = process.env
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    cwd,
    env: { ...inherited, ...(socket === undefined ? {} : { VFIOD_SOCKET: socket }), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  let look = () => {}
  child.stdout.on('data', (text) => {
    stdout += text
    look()
  })
  child.stderr.on('data', (text) => {
    stderr += text
  })
  const outcome = new Promise<Outcome>((resolve) => {
    child.once('close', (code) => resolve({ code, stdout, stderr }))
  })
  return {
    outcome,
    says: (text) =>
      new Promise((resolve, reject) => {
        look = () => {
          if (stdout.includes(text)) resolve()
        }
        look()
        void outcome.then((ended) =>
          reject(new Error(`it ended without saying "${text}": ${JSON.stringify(ended)}`)),
        )
      }),
    interrupt: () => {
      child.kill('SIGINT')
    },
    kill: (signal = 'SIGKILL') => {
      child.kill(signal)
    },
  }
}

export const run = (args: readonly string[], options?: RunOptions): Promise<Outcome> =>
  start(args, options).outcome
