/**
 * Step 7. Resources belong to processes. A process that is killed leaves nothing behind: its device is
 * reset, its mappings and its group are free, and the next process can have them.
 */
import type { Device__Output as Device } from '../../proto/vfiod/v1/Device.ts'
import { type Stage, startClient } from '../stage.ts'

const OWN_SPACE = 'latecomer'

/** Looks at the group until no address space has it: the daemon says so as soon as it knows. */
const untilFree = async ({ client }: Stage, groupId: number): Promise<void> => {
  for await (const { group } of client.inventory.watchGroups())
    if (group?.groupId === groupId && group.spaceId === '') return
}

export const outlive = async (stage: Stage, device: Device): Promise<void> => {
  const { client, tell } = stage
  const { groupId, name } = device
  tell.step('Outlive a client: what a killed process owned is free at once')
  const second = startClient(stage, 'owner', String(groupId), name)
  const owned = await second.answer
  tell.say(`A second client, pid ${second.pid}, owns group ${groupId}, ${name} and a mapping:`)
  tell.check('it maps 8 MiB', owned.mapped, String(8 << 20))
  await client.addressSpace.createSpace({ spaceId: OWN_SPACE })
  const refusal = await tell.refusal(
    'taking its group',
    'GROUP_IN_USE',
    client.addressSpace.addGroup({ spaceId: OWN_SPACE, groupId }),
  )
  tell.check('the refusal names the process', refusal.message.includes(`pid ${second.pid}`), true)
  await client.addressSpace.destroySpace({ spaceId: OWN_SPACE })

  const killed = performance.now()
  await second.kill()
  await untilFree(stage, groupId)
  tell.say(`kill -9: its group was free ${Math.round(performance.now() - killed)} ms later`)
  const third = startClient(stage, 'owner', String(groupId), name)
  const taken = await third.answer
  tell.say(`A third client, pid ${third.pid}, asks for the same group, device and ids:`)
  tell.check('it gets all of it', taken, owned)
  await third.dismiss()
  await untilFree(stage, groupId)
}
