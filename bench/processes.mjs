/** The servers of the bench: each a process of its own that says `ready` once it listens. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'

const running = new Set()

const START_MS = 15_000
const STOP_MS = 5000

/** As the unit file sets it: Node 20 reads it before any script runs. */
const ENVIRONMENT = { ...process.env, UV_THREADPOOL_SIZE: '64' }

/** Starts a server whose stderr goes to the file `log`, and waits until it says that it is ready; its pid. */
export const startServer = async (command, args, { log }) => {
  const stdio = ['ignore', 'pipe', openSync(log, 'w')]
  const child = spawn(command, args, { stdio, env: ENVIRONMENT })
  closeSync(stdio[2])
  running.add(child)
  child.once('exit', () => running.delete(child))
  await new Promise((resolve, reject) => {
    const fail = (what) =>
      reject(new Error(`${[command, ...args].join(' ')}: ${what}\n${readFileSync(log, 'utf8')}`))
    const late = setTimeout(() => fail(`not ready after ${START_MS} ms`), START_MS)
    child.once('error', reject)
    child.once('exit', (code) => fail(`ended with ${code}`))
    child.stdout.on('data', (text) => {
      if (!/\bready\b/.test(text)) return
      clearTimeout(late)
      resolve()
    })
  })
  return child.pid
}

/** Nanoseconds that the threads of a process and of its children have run. */
const ranFor = (pid) => {
  let nanoseconds = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const of = (file) => readFileSync(`/proc/${pid}/task/${thread}/${file}`, 'utf8').split(' ')
    nanoseconds += Number(of('schedstat')[0])
    for (const child of of('children')) if (child.trim() !== '') nanoseconds += ranFor(child)
  }
  return nanoseconds
}

/**
 * Milliseconds that a server has run, its fronts included, however long they had to wait for a core.
 */
export const cpuMs = (pid) => ranFor(pid) / 1e6

const stop = async (child) => {
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const kill = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  await ended
  clearTimeout(kill)
}

export const stopServers = () => Promise.all([...running].map(stop))

/** For the way out that cannot wait. */
export const killServers = () => {
  for (const child of running) child.kill('SIGKILL')
}
