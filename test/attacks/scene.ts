/** A daemon that is attacked, with well-behaved clients of other identities beside the attack. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import type { Certificates } from '../../src/link/records.ts'
import { Authority, lacksOpenssl } from '../api/certificates.ts'
import { ClientProcess } from '../api/client-process.ts'
import { SoakDaemon } from '../soak/daemon.ts'
import { until } from '../system/world.ts'

const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** Who attacks, and who is attacked beside. */
export const UID = {
  operator: 20_010,
  observer: 20_011,
  nobody: 20_012,
  bystander: 20_013,
} as const

/** The same on other hosts. */
const REMOTE = { bystander: 'spiffe://bystander', attacker: 'spiffe://attacker' } as const

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
${Object.values(REMOTE)
  .map((name) => `[[rule]]\nremote = "${name}"\nrole = "operate"\n`)
  .join('')}`

/** What a bystander is to do, and what came of it. */
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

/** Devices of the machine that the bystanders have: a serial port, and edu. */
const DEVICE = {
  local: '83b8f4f2-509f-382f-3c1e-e6bfe0fa1002',
  remote: '0000:00:04.0',
} as const

/** Certificates as programs find them: `tls:PORT:FOLDER`. */
const write = (folder: string, certificates: Certificates): string => {
  mkdirSync(folder)
  for (const name of ['ca', 'cert', 'key'] as const)
    writeFileSync(join(folder, `${name}.pem`), certificates[name])
  return folder
}

/** What the daemon has to be told for clients on other hosts, and where the files of those are. */
class Network {
  readonly #authority = new Authority()
  readonly bystander: string
  readonly attacker: string
  readonly config: string
  port = 0

  constructor(directory: string, leaseMs: number) {
    const issue = (name: string) =>
      write(join(directory, name), this.#authority.issue(`URI:spiffe://${name},DNS:localhost`))
    this.bystander = issue('bystander')
    this.attacker = issue('attacker')
    const daemon = issue('daemon')
    const files = ['ca', 'cert', 'key'].map((name) => `tls_${name} = "${daemon}/${name}.pem"\n`)
    this.config = `listen = "127.0.0.1:0"\nlease_ms = ${leaseMs}\n${files.join('')}`
  }

  remove(): void {
    this.#authority.remove()
  }
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
  /** It comes from another host: without TLS, or with a certificate. */
  readonly over?: 'tcp' | 'tls'
}

/** A well-behaved client, and what it has. */
class Bystander {
  readonly name: string
  readonly identity: string
  readonly #lines: Lines
  #guest: object = {}

  constructor(name: string, identity: string, target: string) {
    const { bystander: uid } = UID
    const device = DEVICE[name as keyof typeof DEVICE]
    this.name = name
    this.identity = identity
    const program = [pathOf('bystander.mjs'), target, name, device]
    this.#lines = new Lines(process.execPath, program, { uid, gid: uid })
  }

  get guest(): object {
    return this.#guest
  }

  async settle(): Promise<void> {
    this.#guest = JSON.parse(await this.#lines.hear())
  }

  async look(look: Look): Promise<Looked> {
    this.#lines.say(look)
    return JSON.parse(await this.#lines.hear())
  }

  kill(): Promise<void> {
    return this.#lines.kill()
  }
}

export class Scene {
  readonly daemon: SoakDaemon
  readonly #directory: string
  readonly #hostile: string | undefined
  readonly #network: Network | undefined
  readonly bystanders: readonly Bystander[]
  readonly admin: VfiodClient

  private constructor(parts: {
    readonly daemon: SoakDaemon
    readonly directory: string
    readonly hostile: string | undefined
    readonly network: Network | undefined
  }) {
    const { daemon, network } = parts
    this.daemon = daemon
    this.#directory = parts.directory
    this.#hostile = parts.hostile
    this.#network = network
    this.admin = connect({ socket: daemon.socket })
    this.bystanders = [
      new Bystander('local', `uid ${UID.bystander}`, daemon.socket),
      ...(network === undefined
        ? []
        : [
            new Bystander(
              'remote',
              `remote ${REMOTE.bystander}`,
              `tls:${network.port}:${network.bystander}`,
            ),
          ]),
    ]
  }

  /** `leaseMs` is how long the bystander on another host may be unheard. */
  static async set(leaseMs: number): Promise<Scene> {
    const directory = mkdtempSync(join(tmpdir(), 'vfiod-hostile-'))
    const program = join(directory, 'hostile')
    const compiled = spawnSync('cc', ['-pthread', '-o', program, pathOf('hostile.c')])
    chmodSync(directory, 0o755)
    const network = lacksOpenssl ? undefined : new Network(directory, leaseMs)
    const daemon = await SoakDaemon.start(network?.config ?? '', POLICY)
    if (network !== undefined)
      network.port = Number(await until(() => /"remotePort":(\d+)/.exec(daemon.output)?.[1]))
    const hostile = compiled.status === 0 ? program : undefined
    const scene = new Scene({ daemon, directory, hostile, network })
    await scene.admin.inventory.bindDevices({ devices: [DEVICE.remote] })
    for (const bystander of scene.bystanders) await bystander.settle()
    return scene
  }

  look(look: Look): Promise<readonly Looked[]> {
    return Promise.all(this.bystanders.map((bystander) => bystander.look(look)))
  }

  #targetOf(over: Attack['over']): string {
    const { port, attacker } = this.#network ?? { port: 0, attacker: '' }
    if (over === 'tcp') return `tcp:${port}`
    return over === 'tls' ? `tls:${port}:${attacker}` : this.daemon.socket
  }

  /** Starts an attack and waits until it has begun. */
  async start({ as, by, startsAsRoot, over }: Attack): Promise<{ end: () => Promise<void> }> {
    const { socket, fdSocket } = this.daemon
    const user = startsAsRoot === true ? {} : { uid: UID[as], gid: UID[as] }
    const isHostile = typeof by !== 'string'
    const names: Readonly<Record<string, string>> = { SOCKET: socket, FDS: fdSocket }
    const args = isHostile
      ? by.map((arg) => names[arg] ?? arg)
      : [pathOf('attacker.mjs'), by, this.#targetOf(over)]
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

  /** Lines of the log about things of bystanders being released. */
  released(): readonly string[] {
    const lines = this.daemon.output.split('\n').filter((line) => line.includes('"released"'))
    return lines.filter((line) =>
      this.bystanders.some(({ identity }) => line.includes(`"${identity}"`)),
    )
  }

  async end(): Promise<number | null> {
    for (const bystander of this.bystanders) await bystander.kill()
    this.admin.close()
    const code = await this.daemon.stop()
    rmSync(this.#directory, { recursive: true, force: true })
    this.#network?.remove()
    return code
  }
}
