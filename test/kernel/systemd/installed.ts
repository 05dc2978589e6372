/** The unit as it ships, installed in the machine of this folder, and what systemd says of it. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connect, type VfiodClient } from '../../../src/client/client.ts'

const CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url))
/** Where the unit can see it, wherever the checkout is: not in /home, not in /tmp. */
const INSTALLED = '/run/vfiod-checkout'
/** The Node of the packages is in the checkout, so it is found there too. */
const NODE = process.execPath.replace(CHECKOUT, `${INSTALLED}/`)
const UNITS = '/run/systemd/system'
/** Where tests put what the daemon reads. */
export const FILES = '/run/vfiod-files'
export const SOCKET = '/run/vfiod/vfiod.sock'

/** They stay while the daemon is stopped and started. */
const HELPERS = ['looks', 'writes'].flatMap((what) => [
  `vfiod-${what}.socket`,
  `vfiod-${what}.service`,
])

const clients: VfiodClient[] = []

const UNIT_FILES = [
  'vfiod.service',
  'vfiod.socket',
  'vfiod-front.socket',
  'vfiod-front@.service',
] as const

const run = (command: string, ...args: readonly string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })

export const systemctl = (...args: readonly string[]): string => run('systemctl', ...args)

export const property = (name: string, unit = 'vfiod.service'): string =>
  systemctl('show', '--value', `--property=${name}`, unit).trim()

/** What vfioctl prints, run by a user who is not root. */
export const vfioctlAs = (uid: number, ...args: readonly string[]): string => {
  const { stdout, stderr } = spawnSync(`${INSTALLED}/bin/vfioctl`, ['--socket', SOCKET, ...args], {
    uid,
    gid: uid,
    cwd: '/',
    encoding: 'utf8',
  })
  return stdout + stderr
}

/** The pids of fronts that run: the processes of their units that are Node. */
export const fronts = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const isOfUnit = readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes('/vfiod-front@')
        return isOfUnit && readlinkSync(`/proc/${pid}/exe`).endsWith('/node')
      } catch {
        // It has ended meanwhile.
        return false
      }
    })

/** A connection of this process, closed by `cleanUp`. */
export const keep = (client: VfiodClient): VfiodClient => {
  clients.push(client)
  return client
}

export const client = (): VfiodClient => keep(connect({ socket: SOCKET }))

const shipped = (name: string): string => readFileSync(`${CHECKOUT}systemd/${name}`, 'utf8')

const write = (path: string, text: string): string => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
  return path
}

/** Install a unit file that a test has made of one that ships. */
export const installAs = (name: string, text: string): void => {
  write(`${UNITS}/${name}`, text)
  systemctl('daemon-reload')
}

/** The unit with nothing changed but where the program is. */
export const install = (): void => {
  mkdirSync(INSTALLED, { recursive: true })
  run('mount', '--bind', CHECKOUT, INSTALLED)
  for (const name of [...UNIT_FILES, ...HELPERS])
    installAs(name, shipped(name).replace('/usr/bin/vfiod', `${INSTALLED}/bin/vfiod`))
}

export const uninstall = (): void => {
  systemctl('stop', ...HELPERS)
  run('umount', INSTALLED)
  rmSync(FILES, { recursive: true, force: true })
}

/** A file for the daemon to read; answers its path. */
export const file = (name: string, text: string): string => write(join(FILES, name), text)

/** Let the daemon start with this configuration. */
export const configure = (text: string): void =>
  installAs(
    'vfiod.service.d/config.conf',
    `[Service]\nEnvironment=VFIOD_CONFIG=${file('vfiod.toml', text)}\n`,
  )

/** Install the drop-in that ships for clients on other hosts. */
export const allowRemote = (): void =>
  installAs('vfiod.service.d/remote.conf', shipped('remote.conf'))

/** Run a program in the sandbox of a unit, in the place of its own; answers what it prints. */
export const inSandbox = (
  script: string,
  name: 'vfiod' | 'vfiod-front@' | 'vfiod-looks' | 'vfiod-writes' = 'vfiod',
): string => {
  const program = file('probe.mjs', script)
  const unit = shipped(`${name}.service`)
    .replace('Type=notify', '')
    .replace(/^Restart=.*$/m, 'Restart=no')
    .replace(/^WatchdogSec=.*$/m, '')
    .replace(/^ExecStart=.*$/m, `Type=oneshot\nExecStart=${NODE} ${program}`)
  installAs('vfiod-probe.service', `${unit}\n[Service]\nStandardOutput=truncate:${FILES}/printed\n`)
  systemctl('start', 'vfiod-probe.service')
  return readFileSync(`${FILES}/printed`, 'utf8')
}

/** Close connections, stop the daemon, and take back what tests configured. */
export const cleanUp = (): void => {
  for (const made of clients.splice(0)) made.close()
  systemctl('stop', 'vfiod.socket', 'vfiod.service', 'vfiod-front.socket')
  rmSync(`${UNITS}/vfiod.service.d`, { recursive: true, force: true })
  systemctl('daemon-reload')
}
