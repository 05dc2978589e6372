// A client process that takes a device, maps memory, and then does nothing until it is killed.
//   node holder.mjs SOCKET DEVICE
import { connect } from '../../dist/client/client.js'

const [socket, name] = process.argv.slice(2)
const client = connect({ socket })
const spaceId = 'held'
const { device } = await client.inventory.getDevice({ name })
await client.addressSpace.createSpace({ spaceId })
await client.addressSpace.addGroup({ spaceId, groupId: device.groupId })
await client.device.openDevice({ spaceId, name })
await client.memory.allocateMemory({ memoryId: 'held-memory', length: String(8 << 20) })
const { results } = await client.addressSpace.map({
  spaceId,
  items: [
    {
      iova: '1048576',
      length: String(8 << 20),
      memoryId: 'held-memory',
      offset: '0',
      access: 'ACCESS_READ_WRITE',
    },
  ],
})
console.log(results[0].code === 0 ? 'holding' : JSON.stringify(results))
setInterval(() => {}, 1000)
