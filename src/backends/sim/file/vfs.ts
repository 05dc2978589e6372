/**
 * The file system as far as vfiod looks at it: a tree that is computed when it is walked, so that
 * it always shows the present. Links are as relative as sysfs makes them.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { Answer, Caller, OpenFile } from './open-file.ts'

export interface Directory {
  readonly kind: 'directory'
  /** Each name with what makes its node; called anew for every walk. */
  entries(): Record<string, () => Node>
}

export interface Attribute {
  readonly kind: 'attribute'
  /** The content, or -errno. */
  readonly show?: () => string | number
  /** One write(2): 0 or more for success, or -errno. */
  readonly store?: (data: string) => Answer
}

export interface Link {
  readonly kind: 'link'
  /** An absolute path; readlink answers it relative to the link's directory, as sysfs does. */
  readonly target: string
  /** In procfs readlink answers what the file was opened by. */
  readonly isOpenFile?: true
}

export interface DeviceNode {
  readonly kind: 'device node'
  /** A new open file, with the one reference for its fd; or -errno. */
  open(caller: Caller): OpenFile | number
}

export type Node = Directory | Attribute | Link | DeviceNode

export const directory = (entries: () => Record<string, () => Node>): Directory => ({
  kind: 'directory',
  entries,
})

export const attribute = (
  show: Attribute['show'] | undefined,
  store?: Attribute['store'],
): Attribute => ({ kind: 'attribute', ...(show && { show }), ...(store && { store }) })

export const link = (target: string): Link => ({ kind: 'link', target })

/** The text that a write gives an attribute: one newline at its end does not count (sysfs_streq). */
export const line = (data: string): string => (data.endsWith('\n') ? data.slice(0, -1) : data)

/** A link of /proc/PID/fd. */
export const openFileLink = (target: string): Link => ({ kind: 'link', target, isOpenFile: true })

const LINKS_MAX = 40

export class Vfs {
  readonly #root: Directory

  constructor(root: Directory) {
    this.#root = root
  }

  async readFile(path: string): Promise<Uint8Array | number> {
    const node = this.#lookup(path)
    if (typeof node === 'number') return node
    if (node.kind === 'directory') return -ERRNO.EISDIR
    if (node.kind !== 'attribute') return -ERRNO.EINVAL
    const text = node.show ? node.show() : -ERRNO.EACCES
    return typeof text === 'number' ? text : new TextEncoder().encode(text)
  }

  async writeFile(path: string, data: string): Promise<number> {
    const node = this.#lookup(path)
    if (typeof node === 'number') return node
    if (node.kind === 'directory') return -ERRNO.EISDIR
    if (node.kind !== 'attribute') return -ERRNO.EINVAL
    if (!node.store) return -ERRNO.EACCES
    // sysfs never calls an attribute for an empty write.
    if (data === '') return 0
    const answer = await node.store(data)
    return answer < 0 ? answer : Buffer.byteLength(data)
  }

  async readDir(path: string): Promise<string[] | number> {
    const node = this.#lookup(path)
    if (typeof node === 'number') return node
    return node.kind === 'directory' ? Object.keys(node.entries()) : -ERRNO.ENOTDIR
  }

  async readLink(path: string): Promise<string | number> {
    const found = this.#walk(path, { followsLast: false })
    if (typeof found === 'number') return found
    if (found.node.kind !== 'link') return -ERRNO.EINVAL
    if (found.node.isOpenFile) return found.node.target
    return relative(found.path.slice(0, -1), found.node.target.split('/').filter(Boolean))
  }

  open(path: string, caller: Caller): OpenFile | number {
    const node = this.#lookup(path)
    if (typeof node === 'number') return node
    if (node.kind === 'directory') return -ERRNO.EISDIR
    if (node.kind !== 'device node') return -ERRNO.EACCES
    const file = node.open(caller)
    if (typeof file !== 'number') file.path = path
    return file
  }

  #lookup(path: string): Node | number {
    const found = this.#walk(path, { followsLast: true })
    return typeof found === 'number' ? found : found.node
  }

  #walk(
    path: string,
    { followsLast }: { readonly followsLast: boolean },
  ): { readonly node: Node; readonly path: readonly string[] } | number {
    let todo = path.split('/').filter((name) => name !== '' && name !== '.')
    let trail: { name: string; node: Node }[] = []
    let links = 0
    let at: Node = this.#root
    while (todo.length > 0) {
      const [name, ...rest] = todo as [string, ...string[]]
      todo = rest
      if (name === '..') {
        trail = trail.slice(0, -1)
        at = trail.at(-1)?.node ?? this.#root
        continue
      }
      if (at.kind !== 'directory') return -ERRNO.ENOTDIR
      const entries = at.entries()
      const make = Object.hasOwn(entries, name) ? entries[name] : undefined
      if (make === undefined) return -ERRNO.ENOENT
      const node = make()
      if (node.kind === 'link' && (todo.length > 0 || followsLast)) {
        links += 1
        if (links > LINKS_MAX) return -ERRNO.EINVAL
        todo = [...node.target.split('/').filter(Boolean), ...todo]
        trail = []
        at = this.#root
        continue
      }
      trail.push({ name, node })
      at = node
    }
    return { node: at, path: trail.map(({ name }) => name) }
  }
}

/** Up to the directory that the target is in and down again, also where that leads back here. */
const relative = (from: readonly string[], to: readonly string[]): string => {
  let shared = 0
  while (shared < to.length - 1 && from[shared] === to[shared]) shared += 1
  return [...from.slice(shared).map(() => '..'), ...to.slice(shared)].join('/')
}
