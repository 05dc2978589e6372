/** Regions of devices that `map` maps for the other devices of the address space. */
import { InvalidArgumentError } from 'commander'
import { mapAll } from '../client/verbs.ts'
import type { Access } from '../proto/vfiod/v1/Access.ts'
import { RegionAccess } from './region-access.ts'
import type { CommandSession } from './session.ts'

/** A region by its index or its name. */
export interface PeerRegion {
  readonly device: string
  readonly region: string
}

/** `0000:00:05.0/BAR0`; a repeated option adds to the ones before. */
export const parsePeers = (text: string, before: readonly PeerRegion[] = []): PeerRegion[] => {
  const [device = '', region = '', ...more] = text.split('/')
  if (device !== '' && region !== '' && more.length === 0) return [...before, { device, region }]
  throw new InvalidArgumentError('A device and a region are needed, such as 0000:00:05.0/BAR0.')
}

/** A region that was mapped, whole. */
export interface MappedRegion {
  readonly device: string
  readonly region: number
  readonly name: string
  readonly iova: bigint
  readonly length: bigint
}

/** Opens the device of a region in the space, lets it decode, and maps all of the region. */
export const mapPeer = async (
  session: CommandSession,
  spaceId: string,
  { device: wanted, region: regionName }: PeerRegion,
  how: { readonly access: Access; readonly place: (length: bigint) => bigint },
): Promise<MappedRegion> => {
  const { client, vfToken, signal } = session
  const found = await client.inventory.getDevice({ name: wanted }, { signal })
  const opened = await client.device.openDevice({ spaceId, name: wanted, vfToken }, { signal })
  const { device } = found
  const { device: info } = opened
  if (device === null || info === null) throw new Error('the daemon answered without a device')
  const borrowed = { ...session, name: device.name, device, info }
  const { index, name, size: length } = await RegionAccess.to(borrowed, regionName)
  const iova = how.place(length)
  const region = { device: device.name, region: index }
  await mapAll(client, spaceId, [{ iova, length, region, access: how.access }], { signal })
  return { ...region, name, iova, length }
}
