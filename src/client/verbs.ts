/**
 * What takes a client more than one call: fds go over the fd channel by a ticket that an RPC gives,
 * and a batch answers per item. Each verb throws the refusal of whichever step has one.
 */
import type { MapItem } from '../proto/vfiod/v1/MapItem.ts'
import type { SetIrqEventfdsRequest } from '../proto/vfiod/v1/SetIrqEventfdsRequest.ts'
import type { Ticket } from '../proto/vfiod/v1/Ticket.ts'
import type { CallOptions } from './calls.ts'
import type { VfiodClient } from './client.ts'
import { receiveFds, sendFds } from './fd-channel.ts'
import { requireItems } from './item-status.ts'

/** What the daemon says on the fd channel of what it took. */
type Reply = Readonly<Record<string, unknown>>

const ticketOf = ({ ticket }: { readonly ticket: Ticket | null }): Ticket => {
  if (ticket === null) throw new Error('the daemon answered without a ticket')
  return ticket
}

/** The one fd of a ticket; the caller's to close. */
const oneFd = async (answer: { readonly ticket: Ticket | null }): Promise<number> => {
  const { fds } = await receiveFds(ticketOf(answer))
  const [fd] = fds
  if (fd === undefined) throw new Error('the daemon sent no fd')
  return fd
}

/** Registers a memfd, or a file on tmpfs or hugetlbfs. The fd stays open here. */
export const registerMemory = async (
  client: VfiodClient,
  { memoryId, fd }: { readonly memoryId: string; readonly fd: number },
): Promise<Reply> => sendFds(ticketOf(await client.memory.registerMemory({ memoryId })), [fd])

/** The memfd of a memory of the caller, which has to close it. */
export const exportMemory = async (client: VfiodClient, memoryId: string): Promise<number> =>
  oneFd(await client.memory.exportMemory({ memoryId }))

/** The fd of an open device of the caller, which has to close it. */
export const exportFd = async (client: VfiodClient, name: string): Promise<number> =>
  oneFd(await client.device.exportFd({ name }))

/** Arms vectors with an eventfd each. The eventfds stay open here. */
export const armEventfds = async (
  client: VfiodClient,
  request: SetIrqEventfdsRequest,
  eventfds: readonly number[],
  options: CallOptions = {},
): Promise<Reply> =>
  sendFds(ticketOf(await client.device.setIrqEventfds(request, options)), eventfds)

/** A range to map; readable and writable for devices from offset 0 unless it says otherwise. */
export type MapRange = {
  readonly iova: bigint
  /** Bytes. */
  readonly length: bigint
  readonly offset?: bigint
  readonly access?: NonNullable<MapItem['access']>
} & (
  | { readonly memoryId: string }
  /** A part of an open device, for the DMA of its peers. */
  | { readonly region: { readonly device: string; readonly region: number } }
)

/** Maps every range; throws the refusal of the first that is refused, with the others done. */
export const mapAll = async (
  client: VfiodClient,
  spaceId: string,
  ranges: readonly MapRange[],
  options: CallOptions = {},
): Promise<void> => {
  const items = ranges.map(({ iova, length, offset = 0n, access, ...source }) => ({
    iova: String(iova),
    length: String(length),
    ...source,
    offset: String(offset),
    access: access ?? 'ACCESS_READ_WRITE',
  }))
  const { results } = await client.addressSpace.map({ spaceId, items }, options)
  requireItems('vfiod.v1.AddressSpaceService/Map', results)
}

/** What a list answers: a page of it. */
type Paged<Key extends string, Element> = Readonly<Record<Key, readonly Element[]>> & {
  readonly nextPageToken: string
}

/** Every element of a list that comes in pages: `allOf('spaces', (page) => listSpaces(page))`. */
export const allOf = async <Key extends string, Element>(
  key: Key,
  list: (page: { readonly pageToken: string }) => Promise<Paged<Key, Element>>,
): Promise<Element[]> => {
  const all: Element[] = []
  let pageToken = ''
  do {
    const page = await list({ pageToken })
    all.push(...page[key])
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return all
}
