/**
 * What the kernel does when a client signals an eventfd. Every watcher of one eventfd acts, the
 * newest first, and the count is taken. A count from before a watcher was added signals the new
 * watcher at once, and stays for the reader.
 */

import { Eventfd } from '../core/eventfd.ts'
import type { Pending } from '../core/pending.ts'

interface Watched {
  readonly eventfd: Eventfd
  readonly stop: () => void
  /** Newest first. */
  readonly watchers: (() => void)[]
  /** The count that is there already and has acted. */
  left: bigint
}

export class Virqfds {
  readonly #pending: Pending
  readonly #watched = new Map<string, Watched>()

  constructor(pending: Pending) {
    this.#pending = pending
  }

  /** Acts at each signal until what it answers is called; or -EBADF, -EINVAL as Eventfd.of(). */
  watch(fd: number, act: () => void): (() => void) | number {
    const eventfd = Eventfd.of(fd)
    if (typeof eventfd === 'number') return eventfd
    const { id, count } = eventfd.peek()
    const known = this.#watched.get(id)
    if (known) eventfd.put()
    const watched = known ?? this.#add(id, eventfd)
    watched.watchers.unshift(act)
    if (count > 0n) {
      watched.left = count
      act()
    }
    return () => this.#remove(id, watched, act)
  }

  #add(id: string, eventfd: Eventfd): Watched {
    const stop = this.#pending.watch(() => look(watched))
    const watched: Watched = { eventfd, stop, watchers: [], left: 0n }
    this.#watched.set(id, watched)
    return watched
  }

  #remove(id: string, watched: Watched, act: () => void): void {
    watched.watchers.splice(watched.watchers.indexOf(act), 1)
    if (watched.watchers.length > 0) return
    this.#watched.delete(id)
    watched.stop()
    watched.eventfd.put()
  }
}

const look = (watched: Watched): boolean => {
  const { eventfd } = watched
  if (watched.left > 0n && eventfd.peek().count === watched.left) return false
  watched.left = 0n
  if (!eventfd.take()) return false
  for (const act of [...watched.watchers]) act()
  return true
}
