/**
 * Step 2. Memory belongs to the client: it makes a memfd, passes the fd over the fd channel, and
 * the daemon maps the same pages for the device. What the device writes, the client sees.
 */
import { closeSync } from 'node:fs'
import { hex } from '../../base/units.ts'
import { mapAll, registerMemory } from '../../client/verbs.ts'
import { mapFd, memfdCreate, type Segment } from '../../os/memory.ts'
import type { Device__Output as Device } from '../../proto/vfiod/v1/Device.ts'
import type { Stage } from '../stage.ts'

/** What the client shares with its device. */
export interface DemoMemory {
  readonly spaceId: string
  readonly memoryId: string
  readonly fd: number
  /** The client's own view of the bytes. */
  readonly segment: Segment
  /** Where the device sees their first one. */
  readonly iova: bigint
  readonly length: bigint
}

const SPACE = 'demo'
const IOVA = 0x10_0000n
const LENGTH = 2n << 20n

export const shareMemory = async (stage: Stage, device: Device): Promise<DemoMemory> => {
  const { client, tell } = stage
  tell.step('Share memory: a memfd of this process, mapped for a device')
  const fd = memfdCreate('demo-memory', LENGTH)
  const segment = await mapFd(fd, { offset: 0n, length: LENGTH, access: 'read-write' })
  if (typeof segment === 'number') throw new Error(`mmap answered ${segment}`)
  const reply = await registerMemory(client, { memoryId: 'demo-memory', fd })
  tell.say('RegisterMemory gives a ticket; ticket and memfd go over the fd channel, which answers:')
  tell.show(JSON.stringify(reply))

  await client.addressSpace.createSpace({ spaceId: SPACE })
  const { groupId } = device
  const { space } = await client.addressSpace.addGroup({ spaceId: SPACE, groupId })
  tell.say(`An address space with group ${groupId} may map here:`)
  tell.show(
    ...(space?.apertures ?? []).map(
      ({ start, last }) => `${hex(BigInt(start))} to ${hex(BigInt(last))}`,
    ),
  )
  await mapAll(client, SPACE, [{ memoryId: 'demo-memory', iova: IOVA, length: LENGTH }])
  const { mappings } = await client.addressSpace.listMappings({ spaceId: SPACE })
  const [mapping] = mappings
  tell.check(
    `${hex(LENGTH)} bytes are mapped at iova ${hex(IOVA)}`,
    [mappings.length, mapping?.iova, mapping?.length],
    [1, String(IOVA), String(LENGTH)],
  )
  return {
    spaceId: SPACE,
    memoryId: 'demo-memory',
    fd,
    segment,
    iova: IOVA,
    length: LENGTH,
  }
}

/** What the daemon has of it goes with the address space. */
export const forgetMemory = ({ fd }: DemoMemory): void => closeSync(fd)
