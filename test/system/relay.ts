/** A process that connects in every way a process can, and calls with the identity of each. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll } from 'vitest'
import { connect, type VfiodClient } from '../../src/client/client.ts'

const SOURCE = new URL('./relay.c', import.meta.url).pathname

const directory = mkdtempSync(join(tmpdir(), 'vfiod-relay-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const compile = (): string | undefined => {
  const program = join(directory, 'relay')
  return spawnSync('cc', ['-pthread', '-o', program, SOURCE]).status === 0 ? program : undefined
}

/** The compiled relay.c; undefined where there is no C compiler. */
export const relayProgram = compile()

/** How the task that connects is related to the relay; see relay.c. */
export type Relation =
  | 'thread'
  | 'fork'
  | 'double'
  | 'share'
  | 'vfork'
  | 'newpid'
  | 'inherit'
  | 'pid'

/** What calls as one task. */
export interface Place {
  /** As the task itself sees it. */
  readonly pid: number
  readonly client: VfiodClient
}

/** How the daemon refuses a connection of a process that is no more what it was. */
export const FORMER = { status: 'UNAUTHENTICATED', reason: 'UNKNOWN_PEER' }
/** How it refuses who is not the owner. */
export const STRANGER = { status: 'PERMISSION_DENIED', reason: 'NOT_MM_OWNER' }

export const needsCompiler = relayProgram === undefined
/** For the names of tests that need it. */
export const suffix = needsCompiler ? ' (skipped: there is no C compiler)' : ''

let paths = 0
const newPath = (): string => {
  paths += 1
  return join(directory, `${paths}.sock`)
}

export class Relay {
  readonly child: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #clients: VfiodClient[] = []

  private constructor(socket: string) {
    // A process group of its own, so that nothing it started outlives the test.
    this.child = spawn(relayProgram ?? '', [socket], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    })
    if (this.child.stdout === null) throw new Error('no output')
    this.#lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  static async start(socket: string): Promise<Relay> {
    const relay = new Relay(socket)
    await relay.#hear('ready')
    return relay
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  /** A connection that a relative of this process makes; with `pid`, one that has this pid. */
  async connect(relation: Relation, pid?: number): Promise<Place> {
    const path = newPath()
    this.#tell(`${relation} ${path} ${pid ?? ''}`)
    return this.#placeAt(path)
  }

  /** A connection that this process makes and `other` uses. */
  async connectFor(other: Relay): Promise<Place> {
    const [path, given] = [newPath(), newPath()]
    other.#tell(`take ${path} ${given}`)
    await other.#hear('taking')
    this.#tell(`give ${newPath()} ${given}`)
    await this.#hear('given')
    return other.#placeAt(path)
  }

  /** The process becomes another image that goes on with the same sockets. */
  async exec(): Promise<void> {
    this.#tell('exec')
    await this.#hear('ready')
  }

  /** Kill a child and wait for it: from then on its pid is free. */
  async reap(pid: number): Promise<void> {
    this.#tell(`reap ${pid}`)
    await this.#hear('reaped')
  }

  /** End it with everything it started. */
  end(): void {
    for (const client of this.#clients) client.close()
    try {
      process.kill(-this.pid, 'SIGKILL')
    } catch {
      // They have all ended.
    }
  }

  #tell(line: string): void {
    this.child.stdin?.write(`${line}\n`)
  }

  async #hear(word: string): Promise<string> {
    const { value } = await this.#lines.next()
    if (!String(value).startsWith(word)) throw new Error(`the relay says: ${value}`)
    return value
  }

  async #placeAt(path: string): Promise<Place> {
    const said = await this.#hear('at')
    const client = connect({ socket: path })
    this.#clients.push(client)
    return { pid: Number(said.split(' ')[1]), client }
  }
}

/** A space and a memory object by which ownership shows. */
export const own = async ({ client }: Place): Promise<void> => {
  await client.addressSpace.createSpace({ spaceId: 'owned' })
  await client.memory.allocateMemory({ memoryId: 'owned', length: '4096' })
}
/** What only the owner may. */
export const use = ({ client }: Place) => client.addressSpace.listMappings({ spaceId: 'owned' })
export const who = ({ client }: Place) => client.ownership.whoAmI()
