/** Which processes have certain files of /dev open, from /proc: those that this process may see. */

import type { HolderDetail } from '../base/error.ts'
import type { Holder } from './host-looks.ts'
import type { Kernel } from './port.ts'
import { commandOf } from './sysfs.ts'

/** `pid 812 (qemu)` */
export const holderText = ({ pid, command }: Holder): string => `pid ${pid} (${command})`

/** Of several, each process once: `pid 812 (qemu) and pid 813 (dpdk)`. */
export const holdersText = (holders: readonly Holder[]): string =>
  [...new Set(holders.map(holderText))].join(' and ')

/** For the details of an error. */
export const holderDetail = (holders: readonly Holder[]): HolderDetail => ({
  pids: [...new Set(holders.map(({ pid }) => pid))],
  paths: [...new Set(holders.map(({ path }) => path))],
})

const NODES = '/dev/vfio/'
/** The container: every process may have it open, and it belongs to none of the groups. */
const CONTAINER = '/dev/vfio/vfio'

/** Every file of a group or a device that a process has open. */
export const vfioHolders = (kernel: Kernel): Promise<Holder[]> =>
  kernel.hostLooks?.vfioHolders() ??
  holdersAmong(kernel, (path) => path.startsWith(NODES) && path !== CONTAINER)

/** The processes that have a wanted file open, once for each file. One pass over /proc. */
export async function holdersAmong(
  kernel: Kernel,
  isWanted: (path: string) => boolean,
): Promise<Holder[]> {
  const names = await kernel.readDir('/proc')
  if (typeof names === 'number') return []
  const holders: Holder[] = []
  for (const pid of names.filter((name) => /^\d+$/.test(name))) {
    const paths = await openFiles(kernel, pid, isWanted)
    if (paths.length === 0) continue
    const command = (await commandOf(kernel, Number(pid))) ?? 'gone'
    for (const path of paths) holders.push({ pid: Number(pid), command, path })
  }
  return holders
}

/** Those of certain files. */
export const holdersOf = async (kernel: Kernel, paths: readonly string[]): Promise<Holder[]> =>
  (await vfioHolders(kernel)).filter(({ path }) => paths.includes(path))

async function openFiles(
  kernel: Kernel,
  pid: string,
  isWanted: (path: string) => boolean,
): Promise<string[]> {
  const fds = await kernel.readDir(`/proc/${pid}/fd`)
  if (typeof fds === 'number') return []
  const links = await Promise.all(fds.map((fd) => kernel.readLink(`/proc/${pid}/fd/${fd}`)))
  const paths = links.filter((link) => typeof link === 'string')
  return [...new Set(paths.filter(isWanted))]
}
