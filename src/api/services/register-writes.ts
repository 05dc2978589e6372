/**
 * What clients wrote to the regions of devices, as one line of the audit for each open device: a
 * driver writes registers hundreds of times a second, and a line for each would drown the others.
 */
import type { Client } from '../../domain/identity/clients.ts'
import type { State } from '../../domain/state/state.ts'
import type { Log } from '../identity/log.ts'

interface Tally {
  readonly client: Client
  readonly regions: Set<number>
  writes: number
  bytes: number
}

export class RegisterWrites {
  readonly #log: Log
  /** By device. */
  readonly #tallies = new Map<string, Tally>()

  constructor(state: State, log: Log) {
    this.#log = log
    state.listen((change) => {
      if (change.kind === 'device-closed') this.#report(change.name)
    })
  }

  /** Called for each write that was done. */
  count(
    client: Client,
    write: { readonly name: string; readonly region: number; readonly bytes: number },
  ) {
    const { name, region, bytes } = write
    // Handed over: the writes of the former owner get a separate line.
    if (this.#tallies.get(name)?.client.id !== client.id) this.#report(name)
    const tally = this.#tallies.get(name) ?? { client, regions: new Set(), writes: 0, bytes: 0 }
    this.#tallies.set(name, tally)
    tally.regions.add(region)
    tally.writes += 1
    tally.bytes += bytes
  }

  #report(name: string): void {
    const tally = this.#tallies.get(name)
    if (tally === undefined) return
    this.#tallies.delete(name)
    const { client, writes, bytes } = tally
    const regions = [...tally.regions].sort((a, b) => a - b)
    const who = { client: client.id, identity: client.identity }
    this.#log.info(
      { audit: true, ...who, object: { name, regions }, writes, bytes },
      'registers written',
    )
  }
}
