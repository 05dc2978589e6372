/** Disks of the host, what stands on them, where file systems are mounted, and swap: sysfs and procfs. */

import { errnoName } from '../base/errno.ts'
import { printable } from '../base/printable.ts'
import type { BlockDevice, Mount, SharedFolder, Unseen } from '../rules/host-use.ts'
import { nodeOf } from '../rules/host-use.ts'
import { type ClassDevice, functionsIn, type HostView, unescaped } from './host-view.ts'

const BLOCK = '/sys/class/block'

/** Every disk, partition, array, volume and loop device. */
export async function blockDevices(view: HostView): Promise<BlockDevice[] | Unseen> {
  const devices = await view.devices(BLOCK)
  if (!Array.isArray(devices)) return devices
  const [blocks, loops] = await Promise.all([
    Promise.all(devices.map((device) => blockDevice(view, device))),
    loopFiles(view, devices),
  ])
  return blocks.map((block) => ({
    ...block,
    holders: [...block.holders, ...(loops.get(nodeOf(block.name)) ?? [])],
  }))
}

async function blockDevice(view: HostView, device: ClassDevice): Promise<BlockDevice> {
  const { name, path } = device
  const number = (await view.line(`${path}/dev`)) ?? ''
  const [dm, md, pool, holders, below] = await Promise.all([
    view.line(`${path}/dm/name`),
    view.line(`${path}/md/array_name`),
    poolOf(view, number),
    view.names(`${path}/holders`),
    functionsBelow(view, device),
  ])
  return { name, number, label: dm ?? md, pool, holders, below }
}

/** The name of the ZFS pool in the label of a disk: udev has read it. */
async function poolOf(view: HostView, number: string): Promise<string | undefined> {
  const text = await view.file(`/run/udev/data/b${number}`)
  if (typeof text !== 'string' || !text.includes('E:ID_FS_TYPE=zfs_member\n')) return undefined
  const label = /^E:ID_FS_LABEL=(.*)$/m.exec(text)?.[1]
  return label === undefined ? undefined : printable(label)
}

/** Imported pools, each a directory; the other names in there are none of a pool's. */
export const zfsPools = (view: HostView): Promise<string[]> => view.names('/proc/spl/kstat/zfs')

/**
 * The functions that a disk is below. One that NVMe reaches by several paths is below none, but
 * its subsystem links to its controllers.
 */
async function functionsBelow(view: HostView, { path, below }: ClassDevice): Promise<string[]> {
  if (below.length > 0) return [...below]
  const link = await view.kernel.readLink(view.root + path)
  const subsystem = typeof link === 'number' ? null : /\/nvme-subsystem\/([^/]+)\//.exec(link)
  if (subsystem === null) return []
  const directory = `/sys/class/nvme-subsystem/${subsystem[1]}`
  const controllers = (await view.names(directory)).filter((name) => /^nvme\d+$/.test(name))
  const links = await Promise.all(
    controllers.map((name) => view.kernel.readLink(`${view.root}${directory}/${name}`)),
  )
  return links.flatMap((each) => (typeof each === 'number' ? [] : functionsIn(each)))
}

/** The loop devices over each file that they have; a node in /dev is one. */
async function loopFiles(
  view: HostView,
  devices: readonly ClassDevice[],
): Promise<Map<string, string[]>> {
  const loops = devices.filter(({ name }) => /^loop\d+$/.test(name))
  const files = await Promise.all(loops.map(({ path }) => view.line(`${path}/loop/backing_file`)))
  const over = new Map<string, string[]>()
  files.forEach((file, n) => {
    const loop = loops[n]
    if (file !== undefined && loop !== undefined)
      over.set(file, [...(over.get(file) ?? []), loop.name])
  })
  return over
}

/** File systems that the monitor of a virtual machine shares with it: 9p and virtiofs. */
export async function sharedFolders(view: HostView): Promise<SharedFolder[]> {
  const devices = await view.devices('/sys/bus/virtio/devices')
  if (!Array.isArray(devices)) return []
  const tags = await virtiofsTags(view)
  const found = await Promise.all(
    devices.map(async ({ name, path, below }): Promise<SharedFolder | undefined> => {
      switch (await view.linked(`${path}/driver`)) {
        case '9pnet_virtio': {
          const tag = await view.line(`${path}/mount_tag`)
          // Kernels before 5.16 end the tag with a zero.
          return { name, below, type: '9p', tag: tag?.replace(/\?$/, '') }
        }
        case 'virtiofs':
          return { name, below, type: 'virtiofs', tag: tags.get(name) }
        default:
          return undefined
      }
    }),
  )
  return found.filter((share) => share !== undefined)
}

/** By virtio device; Linux 6.9 and newer say them. */
async function virtiofsTags(view: HostView): Promise<Map<string, string>> {
  const directory = '/sys/fs/virtiofs'
  const tags = new Map<string, string>()
  for (const instance of await view.names(directory)) {
    const device = await view.linked(`${directory}/${instance}/device`)
    const tag = await view.line(`${directory}/${instance}/tag`)
    if (device !== undefined && tag !== undefined) tags.set(device, tag)
  }
  return tags
}

/** The mounts that process 1 has, and those of every other mount namespace. */
export async function mounts(view: HostView): Promise<Mount[] | Unseen> {
  const { kernel } = view
  const read = async (pid: string): Promise<Mount[] | number> => {
    const bytes = await kernel.readFile(`/proc/${pid}/mountinfo`)
    return typeof bytes === 'number' ? bytes : parseMounts(new TextDecoder().decode(bytes))
  }
  const first = await read('1')
  const own = await read('self')
  if (typeof first === 'number' && typeof own === 'number')
    return { unseen: `/proc/1/mountinfo: ${errnoName(-first)}` }
  const found = typeof first === 'number' ? [] : [...first]
  const others = await Promise.all((await otherNamespaces(view)).map(read))
  for (const answer of [own, ...others]) {
    if (typeof answer === 'number') continue
    // Other namespaces have their own places for what is mounted here: those say nothing more.
    const known = new Set(found.map(({ number, source }) => `${number} ${source}`))
    found.push(...answer.filter(({ number, source }) => !known.has(`${number} ${source}`)))
  }
  return [...found, ...(await onSeveralDisks(view, found))]
}

/** A btrfs has one of its disks as the source of its mounts, and lists all of them. */
async function onSeveralDisks(view: HostView, found: readonly Mount[]): Promise<Mount[]> {
  const directory = '/sys/fs/btrfs'
  const all = found.filter(({ type }) => type === 'btrfs')
  if (all.length === 0) return []
  const more: Mount[] = []
  for (const id of await view.names(directory)) {
    const names = await view.names(`${directory}/${id}/devices`)
    const labels = await Promise.all(
      names.map((name) => view.line(`${directory}/${id}/devices/${name}/dm/name`)),
    )
    const nodes = names.map((name, n) =>
      labels[n] === undefined ? nodeOf(name) : `/dev/mapper/${labels[n]}`,
    )
    const own = all.filter(({ source }) => nodes.includes(source))
    more.push(...nodes.flatMap((source) => own.map((mount) => ({ ...mount, source }))))
  }
  return more
}

/** A process of every mount namespace besides that of process 1. */
async function otherNamespaces({ kernel }: HostView): Promise<string[]> {
  const names = await kernel.readDir('/proc')
  if (typeof names === 'number') return []
  const namespaceOf = (pid: string) => kernel.readLink(`/proc/${pid}/ns/mnt`)
  const pids = names.filter((name) => /^\d+$/.test(name))
  const namespaces = await Promise.all(pids.map(namespaceOf))
  const known = new Set<string | number>([await namespaceOf('1')])
  return pids.filter((_pid, n) => {
    const namespace = namespaces[n]
    if (typeof namespace !== 'string' || known.has(namespace)) return false
    known.add(namespace)
    return true
  })
}

/** proc_pid_mountinfo(5): `36 35 98:0 /root /point options [tags] - type source superoptions`. */
function parseMounts(text: string): Mount[] {
  return text.split('\n').flatMap((row) => {
    const [place = '', file = ''] = row.split(' - ')
    const [, , number, , point] = place.split(' ')
    const [type, source] = file.split(' ')
    if (number === undefined || point === undefined || type === undefined) return []
    return [{ number, type, source: unescaped(source ?? ''), point: unescaped(point) }]
  })
}

/** Block devices that are swap. A unit may hide /proc/swaps from the daemon, which is not "none". */
export async function swaps(view: HostView): Promise<string[] | Unseen> {
  const text = await view.file('/proc/swaps')
  if (typeof text === 'object') return text
  if (text !== undefined) return parseSwaps(text)
  // A kernel without swap, where other files beside it are there.
  const beside = await view.file('/proc/filesystems')
  return typeof beside === 'string' ? [] : { unseen: `${view.root}/proc/swaps: hidden` }
}

const parseSwaps = (text: string): string[] =>
  text
    .split('\n')
    .slice(1)
    .map((row) => row.split(/\s+/))
    .filter(([, type]) => type === 'partition')
    .map(([path = '']) => unescaped(path))
