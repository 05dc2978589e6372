/**
 * A daemon of its own process, and what its machine offers: the same whole-system tests run over
 * the simulator (npm test) and over the real kernel (npm run test:kernel). VFIOD_BACKENDS chooses.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import type { Mode } from '../modes.ts'

const root = new URL('../..', import.meta.url).pathname

/** Which kernel is under the daemon. */
export const backend = (process.env.VFIOD_BACKENDS ?? 'sim') as 'sim' | 'linux'

export interface Daemon {
  readonly socket: string
  readonly process: ChildProcess
  /** What has arrived so far of what it writes: a line may come later than the answer to its call. */
  output(): string
  /** A connection of this process; closed with the daemon. */
  client(): VfiodClient
  /** SIGTERM, and its exit code. */
  stop(): Promise<number | null>
}

/** The default machine, with what stands behind an address space in a mode. */
const machineIn = ({ vfioContainer }: Mode): string =>
  `extends = "default"\nvfio_container = "${vfioContainer}"\n`

/**
 * Start a daemon and wait until it is ready. Its simulated machine is the default one, or that of
 * the text of a machine file, or the default one in a mode; a real kernel is in one mode only. A policy
 * is the text of its file.
 */
export async function startDaemon(wanted?: string | Mode, policy?: string): Promise<Daemon> {
  const machine = typeof wanted === 'object' ? machineIn(wanted) : wanted
  const directory = mkdtempSync(join(tmpdir(), 'vfiod-system-'))
  const socket = join(directory, 'vfiod.sock')
  const args = [`${root}dist/daemon/main.js`, '--socket', socket]
  if (backend === 'sim') args.push('--sim')
  if (machine !== undefined && backend === 'sim') {
    writeFileSync(join(directory, 'machine.toml'), machine)
    args.push(join(directory, 'machine.toml'))
  }
  if (policy !== undefined) {
    const [policyFile, config] = [join(directory, 'policy.toml'), join(directory, 'vfiod.toml')]
    writeFileSync(policyFile, policy)
    writeFileSync(config, `policy = "${policyFile}"\n`)
    args.push('--config', config)
  }
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stderr.on('data', (bytes) => {
    output += bytes
  })
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (bytes) => {
      output += bytes
      if (output.includes('vfiod: ready')) resolve()
    })
    child.on('exit', (code) => reject(new Error(`vfiod ended with ${code}:\n${output}`)))
  })
  const clients: VfiodClient[] = []
  return {
    socket,
    process: child,
    output: () => output,
    client: () => {
      const made = connect({ socket })
      clients.push(made)
      return made
    },
    stop: async () => {
      for (const client of clients) client.close()
      child.removeAllListeners('exit')
      const code = await ended(child, () => child.kill('SIGTERM'))
      rmSync(directory, { recursive: true, force: true })
      return code
    },
  }
}

/** Wait for a process to end after `cause` made it. */
export const ended = (child: ChildProcess, cause: () => void): Promise<number | null> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve(child.exitCode)
    child.on('exit', (code) => resolve(code))
    cause()
  })

/** Wait until something holds, looking again and again; the test's timeout is the bound. */
export async function until<T>(look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** PCI addresses of QEMU's edu devices, which the simulator has as well. */
export async function eduDevices(client: VfiodClient): Promise<string[]> {
  const { devices } = await client.inventory.listDevices()
  return devices
    .filter(({ vendorId, deviceId }) => vendorId === 0x1234 && deviceId === 0x11e8)
    .map(({ name }) => name)
}

const MTTY = '/sys/class/mdev_bus/mtty/mdev_supported_types'
const UUIDS = [
  '11111111-2222-3333-4444-5555555500a1',
  '11111111-2222-3333-4444-5555555500a2',
] as const

/** Two mtty devices of one type: the simulator has them, on the real kernel they are made here. */
export async function mttyDevices(client: VfiodClient): Promise<[string, string]> {
  if (backend === 'linux') {
    for (const uuid of UUIDS) {
      if (!existsSync(`/sys/bus/mdev/devices/${uuid}`)) {
        writeFileSync(`${MTTY}/mtty-2/create`, uuid)
      }
    }
  }
  const { devices } = await client.inventory.listDevices()
  const [a, b] = devices.filter(({ mdevType }) => mdevType === 'mtty-2').map(({ name }) => name)
  if (a === undefined || b === undefined) throw new Error('the machine has no two mtty-2 devices')
  return [a, b]
}

/** On the real kernel the instances that were made are removed: other tests count what is left. */
export function removeMttyDevices(): void {
  if (backend !== 'linux') return
  for (const uuid of UUIDS) {
    const device = `/sys/bus/mdev/devices/${uuid}`
    if (existsSync(device)) writeFileSync(`${device}/remove`, '1')
  }
}

/** The group of a device. */
export async function groupOf(client: VfiodClient, name: string): Promise<number> {
  const { device } = await client.inventory.getDevice({ name })
  if (device === null) throw new Error(`no device ${name}`)
  return device.groupId
}

/** A space with the group of the device, the device open in it. */
export async function openIn(client: VfiodClient, spaceId: string, name: string): Promise<void> {
  await client.addressSpace.createSpace({ spaceId })
  await client.addressSpace.addGroup({ spaceId, groupId: await groupOf(client, name) })
  await client.device.openDevice({ spaceId, name })
}

/** Links of a process's fds, by which the test sees what it holds. */
export function fdsOf(pid: number, names: readonly string[]): string[] {
  return names.flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)]
    } catch {
      return []
    }
  })
}
