/** Step 6. A refusal says what was found and what to do, in words and as data. */
import { mapAll } from '../../client/verbs.ts'
import { type Stage, startClient } from '../stage.ts'
import type { DemoMemory } from './memory.ts'

export const showRefusals = async (stage: Stage, memory: DemoMemory): Promise<void> => {
  const { client, tell } = stage
  tell.step('Be refused: the daemon names the blockers')
  const { spaceId, memoryId, iova } = memory
  tell.say('Mapping over an existing mapping:')
  const over = { memoryId, iova: iova + 0x1000n, length: 0x1000n }
  await tell.refusal('mapping twice', 'IOVA_IN_USE', mapAll(client, spaceId, [over]))

  tell.say('Another process, mapping into the address space of this one:')
  const trespasser = startClient(stage, 'trespasser', spaceId)
  const { reason = '', message = '' } = await trespasser.answer
  await trespasser.dismiss()
  tell.showRefusal(message)
  tell.check("using another client's space is refused with NOT_MM_OWNER", reason, 'NOT_MM_OWNER')
}
