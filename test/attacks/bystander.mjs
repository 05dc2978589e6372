// A well-behaved client: `bystander.mjs SOCKET`. It has a guest, with memory and a device, and looks
// after it. One line of JSON in, one out: `{ count, everyMs, deadlineMs }` are the calls to make.

import { createInterface } from 'node:readline'
import { connect } from '../../dist/client/client.js'

const [socket] = process.argv.slice(2)
const client = connect({ socket })
const SPACE = 'guest'
const MEMORY = 1 << 20

const start = async () => {
  const { devices } = await client.inventory.listDevices()
  const { name, groupId } = devices.filter(({ mdevType }) => mdevType === 'mtty-2').at(-1)
  await client.addressSpace.createSpace({ spaceId: SPACE })
  await client.addressSpace.addGroup({ spaceId: SPACE, groupId })
  await client.memory.allocateMemory({ memoryId: SPACE, length: String(MEMORY) })
  const whole = { iova: '0', length: String(MEMORY), memoryId: SPACE, offset: '0' }
  const items = [{ ...whole, access: 'ACCESS_READ_WRITE' }]
  await client.addressSpace.map({ spaceId: SPACE, items })
  await client.device.openDevice({ spaceId: SPACE, name })
  return name
}

const device = await start()

const CALLS = [
  (options) => client.addressSpace.getSpace({ spaceId: SPACE }, options),
  (options) =>
    client.device.readRegion({ name: device, region: 0, offset: '0', length: 1 }, options),
  (options) => client.ownership.whoAmI({}, options),
  async (options) => {
    const { memory } = await client.memory.allocateMemory({ length: '65536' }, options)
    await client.memory.releaseMemory({ memoryId: memory.memoryId })
  },
  (options) => client.addressSpace.listMappings({ spaceId: SPACE }, options),
]

const guest = async () => {
  const { space } = await client.addressSpace.getSpace({ spaceId: SPACE })
  const { mappings } = await client.addressSpace.listMappings({ spaceId: SPACE })
  return { mappings: mappings.length, devices: space.devices }
}

/** Calls in time: one that is late holds up no other. */
const look = async ({ count, everyMs, deadlineMs }) => {
  const took = []
  const failures = []
  const one = async (call) => {
    const started = performance.now()
    try {
      await CALLS[call % CALLS.length]({ timeoutMs: deadlineMs })
    } catch (error) {
      failures.push(`${error.reason || error.status}: ${error.message}`)
    }
    took.push(performance.now() - started)
  }
  const under = []
  for (let call = 0; call < count; call += 1) {
    under.push(one(call))
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
  await Promise.all(under)
  return { took, failures, guest: await guest() }
}

process.stdout.write(`${JSON.stringify(await guest())}\n`)
for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(await look(JSON.parse(line)))}\n`)
