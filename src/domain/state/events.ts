/**
 * What happened to things without their owner asking: released and why, handed over, adopted,
 * restored. A watcher sees what concerns it; an admin sees everything.
 */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'

export const EVENT_KINDS = [
  'released',
  'handover-offered',
  'handover-expired',
  'adopted',
  'vaddr-restored',
  'lease-expired',
] as const
export type EventKind = (typeof EVENT_KINDS)[number]

export interface Event {
  readonly kind: EventKind
  /** Ids of the clients it concerns; whoever else watches does not see it. */
  readonly clients: readonly string[]
  /** For people: `pid 812 (qemu), uid 1000`. */
  readonly client: string
  readonly why: string
  /** How many of each it was about. */
  readonly spaces: number
  readonly memories: number
}

export class Events {
  readonly #listeners = new Set<(event: Event) => void>()

  publish(event: Event): void {
    for (const listener of this.#listeners) listener(event)
  }

  /** Events from this call on, until the signal; a watcher that lags too far behind is ended. */
  watch(isWanted: (event: Event) => boolean, signal: AbortSignal): AsyncGenerator<Event, void> {
    const waiting: Event[] = []
    const watcher = { wake: () => {} }
    const listener = (event: Event) => {
      if (isWanted(event)) waiting.push(event)
      watcher.wake()
    }
    const end = () => {
      this.#listeners.delete(listener)
      watcher.wake()
    }
    this.#listeners.add(listener)
    signal.addEventListener('abort', end, { once: true })
    return drainInto(waiting, watcher, signal, end)
  }
}

async function* drainInto(
  waiting: Event[],
  watcher: { wake: () => void },
  signal: AbortSignal,
  end: () => void,
): AsyncGenerator<Event, void> {
  try {
    while (!signal.aborted) {
      if (waiting.length > LIMITS.eventBacklog) throw laggard(waiting.length)
      const next = waiting.shift()
      if (next !== undefined) yield next
      else {
        await new Promise<void>((resolve) => {
          watcher.wake = resolve
        })
      }
    }
  } finally {
    signal.removeEventListener('abort', end)
    end()
  }
}

const laggard = (behind: number): VfiodError =>
  new VfiodError(
    'LIMIT_REACHED',
    `Cannot go on watching: ${behind} events were not read, at most ${LIMITS.eventBacklog} wait; watch again`,
    {
      quota: {
        limit: 'events that wait for a watcher',
        max: BigInt(LIMITS.eventBacklog),
        current: BigInt(behind),
        needed: 0n,
      },
    },
  )
