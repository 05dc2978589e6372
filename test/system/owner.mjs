// A client process that owns things and does with them what it is told, one command a line:
//   node owner.mjs SOCKET [TOKEN]
// With a token it adopts first.
import { createInterface } from 'node:readline'
import koffi from 'koffi'
import { connect } from '../../dist/client/client.js'

const F_SETFD = 2

const [socket, token] = process.argv.slice(2)
const client = connect({ socket })
const say = (value) => console.log(JSON.stringify(value))

const commands = {
  own: async ({ name }) => {
    const { device } = await client.inventory.getDevice({ name })
    await client.addressSpace.createSpace({ spaceId: 'handed' })
    await client.addressSpace.addGroup({ spaceId: 'handed', groupId: device.groupId })
    await client.device.openDevice({ spaceId: 'handed', name })
    await client.memory.allocateMemory({ memoryId: 'handed', length: '8192' })
    const item = { iova: '65536', length: '8192', memoryId: 'handed', offset: '0' }
    await client.addressSpace.map({
      spaceId: 'handed',
      items: [{ ...item, access: 'ACCESS_READ_WRITE' }],
    })
    return {}
  },
  offer: ({ deadlineMs }) => client.ownership.handOver({ deadlineMs }),
  mappings: () => client.addressSpace.listMappings({ spaceId: 'handed' }),
  // The ranges that were written, and the end of the read.
  dirty: async ({ spaceId }) => {
    const seen = { ranges: [], end: null }
    for await (const { ranges, end } of client.dirty.readDirty({ spaceId, asRanges: true })) {
      seen.ranges.push(...ranges)
      seen.end = end
    }
    return seen
  },
  tracking: ({ spaceId }) => client.dirty.getTracking({ spaceId }),
  close: ({ name }) => client.device.closeDevice({ name }),
  destroy: ({ spaceId }) => client.addressSpace.destroySpace({ spaceId }),
  // The same process becomes another image of this program, which presents the token.
  exec: async ({ deadlineMs }) => {
    const offer = await client.ownership.handOver({ deadlineMs })
    // Node closes what it inherited when it execs; this image needs its input and output.
    const fcntl = koffi.load(null).func('fcntl', 'int', ['int', 'int', 'int'])
    for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0)
    const execv = koffi.load(null).func('execv', 'int', ['str', 'char **'])
    execv(process.execPath, [process.execPath, process.argv[1], socket, offer.token, null])
  },
  who: () => client.ownership.whoAmI(),
}

const answer = async (work) => {
  try {
    say({ result: await work() })
  } catch ({ reason, message }) {
    say({ reason, message })
  }
}

await answer(() => (token ? client.ownership.adopt({ token }) : client.ownership.whoAmI()))
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...request } = JSON.parse(line)
  await answer(() => commands[command](request))
}
