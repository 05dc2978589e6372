/** A daemon that is attacked, with a well-behaved client of another identity beside the attack. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { ClientProcess } from '../api/client-process.ts'
import { SoakDaemon } from '../soak/daemon.ts'

const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** Who attacks, and who is attacked beside. */
export const UID = {
  operator: 20_010,
  observer: 20_011,
  nobody: 20_012,
  bystander: 20_013,
} as const

const POLICY = `
[[rule]]
user = "root"
role = "admin"
[[rule]]
user = ${UID.operator}
role = "operate"
[[rule]]
user = ${UID.observer}
role = "observe"
[[rule]]
user = ${UID.bystander}
role = "operate"
`

/** What the bystander is to do, and what came of it. */
export interface Look {
  readonly count: number
  readonly everyMs: number
  readonly deadlineMs: number
}
export interface Looked {
  /** Milliseconds of each call. */
  readonly took: readonly number[]
  readonly failures: readonly string[]
  readonly guest: object
}

class Lines {
  readonly child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(program: string, args: readonly string[], user: { uid?: number; gid?: number }) {
    const stdio = ['pipe', 'pipe', 'inherit'] as const
    this.child = spawn(program, args, { ...user, stdio: [...stdio], detached: true })
    if (this.child.stdout === null) throw new Error('no output')
    this.#lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  say(line: object): void {
    this.child.stdin?.write(`${JSON.stringify(line)}\n`)
  }

  async hear(): Promise<string> {
    const { value, done } = await this.#lines.next()
    if (done === true) throw new Error(`${this.child.spawnargs.join(' ')} has ended`)
    return value
  }

  /** Kills it with every process that it has started. */
  async kill(): Promise<void> {
    const { child } = this
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    process.kill(-(child.pid ?? 0), 'SIGKILL')
    await exit
  }
}

/** An attack: who does it, and by what program. */
export interface Attack {
  readonly name: string
  readonly as: keyof typeof UID
  /** A kind of attacker.mjs, or the arguments of hostile.c where SOCKET and FDS stand for the sockets. */
  readonly by: string | readonly string[]
  /** It is started by root, and becomes the user by itself. */
  readonly startsAsRoot?: true
}

export class Scene {
  readonly daemon: SoakDaemon
  readonly #directory: string
  readonly #hostile: string | undefined
  readonly #bystander: Lines
  readonly admin: VfiodClient
  /** What the bystander has. */
  #guest = {}

  private constructor(daemon: SoakDaemon, directory: string, hostile: string | undefined) {
    this.daemon = daemon
    this.#directory = directory
    this.#hostile = hostile
    const { bystander: uid } = UID
    const program = [pathOf('bystander.mjs'), daemon.socket]
    this.#bystander = new Lines(process.execPath, program, { uid, gid: uid })
    this.admin = connect({ socket: daemon.socket })
  }

  static async set(): Promise<Scene> {
    const directory = mkdtempSync(join(tmpdir(), 'vfiod-hostile-'))
    const program = join(directory, 'hostile')
    const compiled = spawnSync('cc', ['-pthread', '-o', program, pathOf('hostile.c')])
    chmodSync(directory, 0o755)
    const daemon = await SoakDaemon.start('', POLICY)
    const scene = new Scene(daemon, directory, compiled.status === 0 ? program : undefined)
    scene.#guest = JSON.parse(await scene.#bystander.hear())
    return scene
  }

  get guest(): object {
    return this.#guest
  }

  async look(look: Look): Promise<Looked> {
    this.#bystander.say(look)
    return JSON.parse(await this.#bystander.hear())
  }

  /** Starts an attack and waits until it has begun. */
  async start({ as, by, startsAsRoot }: Attack): Promise<{ end: () => Promise<void> }> {
    const { socket, fdSocket } = this.daemon
    const user = startsAsRoot === true ? {} : { uid: UID[as], gid: UID[as] }
    const isHostile = typeof by !== 'string'
    const names: Readonly<Record<string, string>> = { SOCKET: socket, FDS: fdSocket }
    const args = isHostile
      ? by.map((arg) => names[arg] ?? arg)
      : [pathOf('attacker.mjs'), by, socket]
    const program = isHostile ? (this.#hostile ?? '') : process.execPath
    const attacker = new Lines(program, args, user)
    if ((await attacker.hear()) !== 'attacking') throw new Error('it does not attack')
    return { end: () => attacker.kill() }
  }

  /** Whether an administrator who connects now is served. */
  async letsAdministratorIn(): Promise<boolean> {
    const admin = connect({ socket: this.daemon.socket })
    const { role } = await admin.ownership.whoAmI()
    admin.close()
    return role === 'ROLE_ADMIN'
  }

  /** What is in use, in all: `3 mappings`. */
  async inUse(): Promise<readonly string[]> {
    const { usage } = await this.admin.admin.getUsage()
    return usage.flatMap(({ name, current }) => (current === '0' ? [] : [`${current} ${name}`]))
  }

  /** Every account has its front from here on, for as long as one without connections is kept. */
  async warmUp(): Promise<void> {
    await this.inUse()
    for (const uid of Object.values(UID)) {
      const client = new ClientProcess(this.daemon.socket, { uid, gid: uid })
      await client.call('ownership', 'whoAmI')
      await client.kill()
    }
  }

  /** Lines of the log about the bystander's things being released. */
  released(): readonly string[] {
    const ofBystander = `"uid ${UID.bystander}"`
    const lines = this.daemon.output.split('\n')
    return lines.filter((line) => line.includes('"released"') && line.includes(ofBystander))
  }

  async end(): Promise<number | null> {
    await this.#bystander.kill()
    this.admin.close()
    const code = await this.daemon.stop()
    rmSync(this.#directory, { recursive: true, force: true })
    return code
  }
}
