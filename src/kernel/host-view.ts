/**
 * How the files of the host are read, which the daemon's namespaces may hide from it: through the root
 * of process 1 (/proc/1/root), for which CAP_SYS_PTRACE is needed, or else as the daemon has them.
 */

import { ERRNO, errnoName } from '../base/errno.ts'
import { printable } from '../base/printable.ts'
import type { Unseen } from '../rules/host-use.ts'
import type { Kernel } from './port.ts'

const ROOT_OF_INIT = '/proc/1/root'
const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/

/** A device of a class of sysfs, as the link of the class says where it is. */
export interface ClassDevice {
  readonly name: string
  /** Its directory. */
  readonly path: string
  /** The PCI functions that it is below, the nearest last. */
  readonly below: readonly string[]
}

export class HostView {
  readonly kernel: Kernel
  /** Stands before every path. */
  readonly root: string

  private constructor(kernel: Kernel, root: string) {
    this.kernel = kernel
    this.root = root
  }

  static async of(kernel: Kernel): Promise<HostView> {
    const names = await kernel.readDir(`${ROOT_OF_INIT}/sys/bus`)
    return new HostView(kernel, typeof names === 'number' ? '' : ROOT_OF_INIT)
  }

  /** A small file, or why it cannot be read; undefined where it is not there. */
  async file(path: string): Promise<string | Unseen | undefined> {
    const full = this.root + path
    const bytes = await this.kernel.readFile(full)
    if (typeof bytes !== 'number') return new TextDecoder().decode(bytes)
    return isAbsent(bytes) ? undefined : { unseen: `${full}: ${errnoName(-bytes)}` }
  }

  /** A file of one line; undefined where it cannot be read. */
  async line(path: string): Promise<string | undefined> {
    const text = await this.file(path)
    return typeof text === 'string' ? printable(text.trim()) : undefined
  }

  /** None where there is no such directory, or it cannot be read. */
  async names(path: string): Promise<string[]> {
    const names = await this.kernel.readDir(this.root + path)
    return typeof names === 'number' ? [] : names
  }

  /** The last part of a link; undefined where there is none. */
  async linked(path: string): Promise<string | undefined> {
    const link = await this.kernel.readLink(this.root + path)
    return typeof link === 'number' ? undefined : link.slice(link.lastIndexOf('/') + 1)
  }

  /** The devices of a class or a bus; none where the kernel does not have it. */
  async devices(directory: string): Promise<ClassDevice[] | Unseen> {
    const names = await this.kernel.readDir(this.root + directory)
    if (typeof names === 'number')
      return isAbsent(names) ? [] : { unseen: `${this.root}${directory}: ${errnoName(-names)}` }
    const found = await Promise.all(names.map((name) => this.#device(directory, name)))
    return found.filter((device) => device !== undefined)
  }

  async #device(directory: string, name: string): Promise<ClassDevice | undefined> {
    const link = await this.kernel.readLink(`${this.root}${directory}/${name}`)
    // A file of the class itself, or gone since.
    if (typeof link === 'number') return undefined
    return { name, path: `${directory}/${name}`, below: functionsIn(link) }
  }
}

/** The PCI addresses among the parts of a path. */
export const functionsIn = (path: string): string[] =>
  path.split('/').filter((part) => PCI_ADDRESS.test(part))

const ABSENT = (['ENOENT', 'ENOTDIR', 'EINVAL', 'ENODEV', 'ENXIO'] as const).map(
  (name) => -ERRNO[name],
)
const isAbsent = (answer: number): boolean => ABSENT.includes(answer)

/** `\040` for a space and the like, in files of procfs. */
export const unescaped = (text: string): string =>
  printable(
    text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    ),
  )
