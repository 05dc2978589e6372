/**
 * Step 4. A client that is updated in place maps its memory again, at other addresses, while its
 * devices go on with DMA: the vaddr becomes invalid, and valid again, and the iova never changes.
 */
import { registerMemory } from '../../client/verbs.ts'
import { type EduDriver, TRANSFER_BYTES } from '../edu-driver.ts'
import type { Stage } from '../stage.ts'
import { pattern } from './dma.ts'
import type { DemoMemory } from './memory.ts'

const PAGE = 4096

export const remap = async (stage: Stage, driver: EduDriver, memory: DemoMemory) => {
  const { client, tell } = stage
  const { spaceId, segment, iova, length, fd } = memory
  tell.step('Remap: the memory gets a new vaddr between two transfers, the iova stays')
  const bytes = pattern(2)
  segment.view(0, TRANSFER_BYTES).set(bytes)
  await driver.readFrom(iova, TRANSFER_BYTES)

  const { invalidatedBytes, deadlineMs } = await client.addressSpace.invalidateVaddr({
    spaceId,
    all: true,
  })
  tell.say(`InvalidateVaddr: without an update the old vaddr is back after ${deadlineMs} ms`)
  tell.check('the vaddr of every byte is invalid', invalidatedBytes, String(length))
  const again = 'demo-memory-again'
  await registerMemory(client, { memoryId: again, fd })
  const { updatedBytes } = await client.addressSpace.updateVaddr({
    spaceId,
    items: [{ iova: String(iova), length: String(length), memoryId: again, offset: '0' }],
  })
  tell.say('UpdateVaddr, with the same memfd registered once more, as after a restart')
  tell.check('the vaddr of every byte is valid', updatedBytes, String(length))

  await driver.writeTo(iova + 2n * BigInt(PAGE), TRANSFER_BYTES)
  const copied = bytes.equals(segment.view(2 * PAGE, TRANSFER_BYTES))
  tell.check('the second transfer has the bytes of the first', copied, true)
}
