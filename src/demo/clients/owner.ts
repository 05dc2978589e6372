/**
 * A client that takes a group, maps memory, opens a device, and keeps all of it until it ends, one
 * way or the other. Run by the demo: `node owner.js SOCKET GROUP DEVICE`.
 */
import { connect } from '../../client/client.ts'
import { RpcError } from '../../client/rpc-error.ts'
import { mapAll } from '../../client/verbs.ts'

const [socket = '', group = '', name = ''] = process.argv.slice(2)
const SPACE = 'owner-space'
const MEMORY = 'owner-memory'
const LENGTH = 8n << 20n

process.title = 'owner'
const client = connect({ socket })

const takeAll = async (): Promise<object> => {
  await client.addressSpace.createSpace({ spaceId: SPACE })
  await client.addressSpace.addGroup({ spaceId: SPACE, groupId: Number(group) })
  await client.memory.allocateMemory({ memoryId: MEMORY, length: String(LENGTH) })
  await mapAll(client, SPACE, [{ memoryId: MEMORY, iova: 0x10_0000n, length: LENGTH }])
  await client.device.openDevice({ spaceId: SPACE, name })
  return { space: SPACE, mapped: String(LENGTH) }
}

const refusal = (error: unknown): object => {
  if (error instanceof RpcError) return { reason: error.reason, message: error.message }
  throw error
}

console.log(JSON.stringify(await takeAll().catch(refusal)))
process.stdin.resume().once('end', () => client.close())
