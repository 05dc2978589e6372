/**
 * A client that tries to map into the address space of another client. Run by the demo:
 * `node trespasser.js SOCKET SPACE`.
 */
import { connect } from '../../client/client.ts'
import { RpcError } from '../../client/rpc-error.ts'
import { mapAll } from '../../client/verbs.ts'

const [socket = '', spaceId = ''] = process.argv.slice(2)
process.title = 'trespasser'
const client = connect({ socket })
const length = 4096n

await client.memory.allocateMemory({ memoryId: 'trespasser-memory', length: String(length) })
const answer = await mapAll(client, spaceId, [
  { memoryId: 'trespasser-memory', iova: 0x4000_0000n, length },
]).then(
  () => ({ reason: '', message: 'it was allowed' }),
  (error: unknown) => {
    if (error instanceof RpcError) return { reason: error.reason, message: error.message }
    throw error
  },
)
console.log(JSON.stringify(answer))
client.close()
