// A well-behaved client: `bystander.mjs TARGET GUEST DEVICE`. It has a guest of that name, with memory
// and a device, and looks after it. One line of JSON in, one out: `{ count, everyMs, deadlineMs }` are the calls to make.

import { createInterface } from 'node:readline'
import { clientAt } from './http2.mjs'

const [target, SPACE, device] = process.argv.slice(2)
const client = clientAt(target)
const MEMORY = 1 << 20
/** How often a client on another host says that it is there. */
const KEEP_ALIVE_MS = 500

const start = async () => {
  const { devices } = await client.inventory.listDevices()
  const { groupId } = devices.find(({ name }) => name === device)
  await client.addressSpace.createSpace({ spaceId: SPACE })
  await client.addressSpace.addGroup({ spaceId: SPACE, groupId })
  await client.memory.allocateMemory({ memoryId: SPACE, length: String(MEMORY) })
  const whole = { iova: '0', length: String(MEMORY), memoryId: SPACE, offset: '0' }
  const items = [{ ...whole, access: 'ACCESS_READ_WRITE' }]
  await client.addressSpace.map({ spaceId: SPACE, items })
  await client.device.openDevice({ spaceId: SPACE, name: device })
}

await start()

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

const { leaseMs } = await client.ownership.whoAmI()
const keepAlive = () => client.ownership.keepAlive({}).catch(() => undefined)
if (Number(leaseMs) > 0) setInterval(keepAlive, KEEP_ALIVE_MS)

process.stdout.write(`${JSON.stringify(await guest())}\n`)
for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(await look(JSON.parse(line)))}\n`)
process.exit()
