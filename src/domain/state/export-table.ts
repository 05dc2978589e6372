/** Device fds that clients were given, by group: while one is open, the kernel keeps the group. */

import { LIMITS } from '../../base/limits.ts'
import type { Change } from './changes.ts'

export class ExportTable {
  readonly #byGroup = new Map<number, readonly string[]>()

  /** As far as is known. */
  of(group: number): readonly string[] {
    return this.#byGroup.get(group) ?? []
  }

  apply(change: Extract<Change, { kind: 'device-exported' | 'exports-closed' }>): void {
    if (change.kind === 'exports-closed') this.#byGroup.delete(change.group)
    else this.#add(change.group, change.what)
  }

  /** The same client may export the same device again and again. */
  #add(group: number, what: string): void {
    const known = this.of(group).filter((each) => each !== what)
    this.#byGroup.set(group, [...known, what].slice(-LIMITS.exportsKnown))
  }

  all(): [number, readonly string[]][] {
    return [...this.#byGroup]
  }
}
