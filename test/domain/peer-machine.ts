/** Two devices in one address space: an edu that does DMA, and a peer whose regions are mapped for it. */

import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/abi/pci.ts'
import type { Client } from '../../src/domain/identity/clients.ts'
import type { RegionItem } from '../../src/domain/space/region-mapping.ts'
import { isOfRegion } from '../../src/domain/state/records.ts'
import { BUFFER, REG, START, TO_MEMORY } from '../contract/edu-driver.ts'
import { EDU, OTHER_EDU, type World } from './machine.ts'

export const PAGE = 0x1000n
/** A card that can be reset, with a BAR of memory, and one of ports. */
export const CARD = '0000:00:07.0'
export const PORT_BAR = 2
export const CONFIG = 7
export const COMMAND = BigInt(PCI_COMMAND)
export const DECODING_OFF = PCI_COMMAND_MASTER
export const DECODING_ON = PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY
/** Where BAR 0 of the peer is mapped, and where memory is. */
export const PEER_IOVA = 0x100_0000n
export const MEMORY_IOVA = 0x10_0000n

export const region = (changes: Partial<RegionItem> = {}): RegionItem => ({
  ...{ iova: PEER_IOVA, length: PAGE, device: OTHER_EDU, region: 0, offset: 0n },
  ...{ access: 'read-write', ...changes },
})

export const memory = (iova = MEMORY_IOVA) =>
  ({ iova, length: PAGE, memoryId: 'ram', offset: 0n, access: 'read-write' }) as const

/** A space of the client with these devices open in it, decoding, and a page of memory. */
export async function peers(
  { domain }: World,
  client: Client,
  names: readonly string[] = [EDU, OTHER_EDU],
  id = 'space',
): Promise<void> {
  await domain.spaces.create(client, id)
  for (const name of names) {
    await domain.binding.bind(client, { devices: [name], driver: undefined, wholeGroup: false })
    await domain.spaces.addGroup(client, id, (await domain.inventory.device(name)).group)
    await domain.devices.open(client, id, name)
    await command({ domain }, client, name, DECODING_ON)
  }
}

/** Write the low byte of its COMMAND register; answers how many mappings were removed for that. */
export const command = (
  { domain }: Pick<World, 'domain'>,
  client: Client,
  name: string,
  value: number,
): Promise<number> =>
  domain.devices.write(client, {
    ...{ name, region: CONFIG, offset: COMMAND, data: new Uint8Array([value, 0]) },
  })

export const map = ({ domain }: World, client: Client, item: RegionItem = region(), id = 'space') =>
  domain.spaces.map(client, id, { items: [item], allOrNothing: true })

/** The mappings of regions that a space has. */
export const mappedRegions = ({ domain }: World, id = 'space') =>
  domain.state.mappings(id).all().filter(isOfRegion)

export class PeerDma {
  readonly #at: World
  readonly #client: Client

  constructor(at: World, client: Client) {
    this.#at = at
    this.#client = client
  }

  /** From an iova into the buffer of the edu. */
  fetch(iova: bigint, length: number): Promise<void> {
    return this.#transfer({ source: iova, destination: BUFFER, length, command: START })
  }

  /** From the buffer of the edu to an iova. */
  store(iova: bigint, length: number): Promise<void> {
    return this.#transfer({ source: BUFFER, destination: iova, length, command: START | TO_MEMORY })
  }

  async #transfer(what: {
    readonly source: bigint
    readonly destination: bigint
    readonly length: number
    readonly command: bigint
  }): Promise<void> {
    await this.#put(REG.dmaSource, what.source)
    await this.#put(REG.dmaDestination, what.destination)
    await this.#put(REG.dmaCount, BigInt(what.length))
    await this.#put(REG.dmaCommand, what.command)
    while (this.#at.sim.step());
  }

  async #put(offset: bigint, value: bigint): Promise<void> {
    const data = new Uint8Array(new BigUint64Array([value]).buffer)
    await this.#at.domain.devices.write(this.#client, { name: EDU, region: 0, offset, data })
  }
}
