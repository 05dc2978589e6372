/** One mapping: a batch of one item, whose refusal is thrown. */
import type { VfiodClient } from '../client/client.ts'
import { requireItems } from '../client/item-status.ts'

export const mapRange = async (
  client: VfiodClient,
  range: {
    readonly spaceId: string
    readonly memoryId: string
    readonly iova: bigint
    readonly length: bigint
  },
): Promise<void> => {
  const { spaceId, memoryId, iova, length } = range
  const { results } = await client.addressSpace.map({
    spaceId,
    items: [
      {
        iova: String(iova),
        length: String(length),
        memoryId,
        offset: '0',
        access: 'ACCESS_READ_WRITE',
      },
    ],
  })
  requireItems('vfiod.v1.AddressSpaceService/Map', results)
}
