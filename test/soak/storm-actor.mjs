// One client of the storm who breaks off: node storm-actor.mjs SOCKET SEED NUMBER CLIENTS DIRECTORY
// It owns devices, migrates and tracks them, remaps, exports, hands everything over and adopts what others
// offer, in several calls at once, of which a third is cancelled in the middle. Its calls may be refused for
// any reason but a mistake of the daemon: what counts is what it owns in the end.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from '../../dist/client/client.js'
import { receiveFds, sendFds } from '../../dist/client/fd-channel.js'
import { eventfdCreate } from '../../dist/os/eventfd.js'
import { memfdCreate } from '../../dist/os/memory.js'
import { closeAll } from '../../dist/os/unix-socket.js'
import { Random } from './random.mjs'
import { obey } from './storm-round.mjs'

const [socket, seed, number, clientCount, directory] = process.argv.slice(2)
const random = new Random(Number(seed) + Number(number) * 7919)
const clients = [connect({ socket }), connect({ socket })]
/** Calls at once. */
const WORKERS = 4
/** Fewer than there are clients, so that they meet. */
const ids = Array.from({ length: 3 }, (_, n) => `actor-${Number(number) % 8}-${n}`)
const anyId = () => `actor-${random.below(Math.min(8, Number(clientCount)))}-${random.below(3)}`
const id = () => (random.below(8) === 0 ? anyId() : random.pick(ids))
const { devices } = await clients[0].inventory.listDevices({})
const usable = devices.filter(
  ({ driver, name }) => /vfio|mtty/.test(driver) || /^[0-9a-f]{8}-/.test(name),
)
const device = () => random.pick(usable)
const STATES = ['STOP', 'RUNNING', 'STOP_COPY', 'RESUMING', 'PRE_COPY', 'RUNNING_P2P']

/** The spaces and memories of this client; they may be another's by the time they are used. */
let spaces = []
let memories = []
const look = async (client) => {
  const { clientId } = await client.ownership.whoAmI({})
  const listed = await client.addressSpace.listSpaces({ pageSize: 2000 })
  spaces = listed.spaces.filter(({ owner }) => owner.clientId === clientId)
  memories = (await client.memory.listMemory({ pageSize: 2000 })).memories
}
const rarely = () => random.below(8) === 0
const space = () => (rarely() ? id() : (random.pick(spaces)?.spaceId ?? id()))
const memory = () => (rarely() ? id() : (random.pick(memories)?.memoryId ?? id()))
const open = () => {
  const opened = spaces.flatMap(({ devices }) => devices)
  return rarely() ? device().name : (random.pick(opened) ?? device().name)
}
/** A space, and a device of one of its groups. */
const member = () => {
  const { spaceId, groupIds } = random.pick(spaces) ?? { spaceId: id(), groupIds: [] }
  const near = usable.filter(({ groupId }) => groupIds.includes(groupId))
  return { spaceId, name: (random.pick(near) ?? device()).name }
}

const take = async (messages, most) => {
  let left = random.below(most)
  for await (const _ of messages) if (left-- === 0) break
}
const withFd = async (fd, use) => {
  try {
    await use(fd)
  } finally {
    await closeAll([fd])
  }
}
async function* chunks(name) {
  const last = random.below(4)
  for (let n = 0; n < last; n += 1)
    yield { name, offset: String(n * 512), data: Buffer.alloc(512, n) }
}
const items = (memoryId) =>
  Array.from({ length: 1 + random.below(40) }, () => ({
    iova: String(4096 * random.below(256)),
    length: '4096',
    memoryId,
    offset: String(4096 * random.below(16)),
    access: 'ACCESS_READ_WRITE',
  }))

/** Everything that a guest needs; it breaks off at the first refusal. */
const setUp = async (c, o) => {
  const [spaceId, memoryId, { name, groupId }] = [id(), id(), device()]
  await c.addressSpace.createSpace({ spaceId }, o)
  await c.memory.allocateMemory({ memoryId, length: '65536' }, o)
  await c.addressSpace.addGroup({ spaceId, groupId }, o)
  await c.addressSpace.map({ spaceId, items: items(memoryId), allOrNothing: false }, o)
  await c.device.openDevice({ spaceId, name }, o)
  await look(c)
}

const acts = {
  look: (c) => look(c),
  setUp,
  createSpace: (c, o) => c.addressSpace.createSpace({ spaceId: id() }, o),
  destroySpace: (c, o) => c.addressSpace.destroySpace({ spaceId: space() }, o),
  addGroup: (c, o) => c.addressSpace.addGroup({ spaceId: space(), groupId: device().groupId }, o),
  removeGroup: (c, o) =>
    c.addressSpace.removeGroup({ spaceId: space(), groupId: device().groupId }, o),
  allocate: (c, o) => c.memory.allocateMemory({ memoryId: id(), length: '65536' }, o),
  release: (c, o) => c.memory.releaseMemory({ memoryId: memory() }, o),
  register: async (c, o) => {
    const { ticket } = await c.memory.registerMemory({ memoryId: id() }, o)
    await withFd(memfdCreate('storm', 65536n), (fd) => sendFds(ticket, [fd]))
  },
  map: (c, o) => {
    const allOrNothing = random.below(2) === 0
    return c.addressSpace.map({ spaceId: space(), items: items(memory()), allOrNothing }, o)
  },
  unmap: (c, o) => {
    const some = { items: [{ iova: '0', length: String(4096 * (1 + random.below(256))) }] }
    return c.addressSpace.unmap(
      { spaceId: space(), ...(random.below(2) ? some : { all: true }) },
      o,
    )
  },
  invalidate: (c, o) => c.addressSpace.invalidateVaddr({ spaceId: space(), all: true }, o),
  update: (c, o) => c.addressSpace.updateVaddr({ spaceId: space(), all: true }, o),
  open: (c, o) => c.device.openDevice(member(), o),
  close: (c, o) => c.device.closeDevice({ name: open() }, o),
  reset: (c, o) => c.device.resetDevice({ name: open() }, o),
  read: (c, o) => c.device.readRegion({ name: open(), region: 7, offset: '0', length: 64 }, o),
  // Memory and bus mastering: profiles begin with their DMA.
  enable: (c, o) => {
    const data = Buffer.from([6, 0])
    return c.device.writeRegion({ name: open(), region: 7, offset: '4', data }, o)
  },
  watchIrqs: (c, o) =>
    take(c.device.watchIrqs({ name: open(), index: random.below(3), start: 0, count: 0 }, o), 2),
  eventfds: async (c, o) => {
    const request = { name: open(), index: random.below(3), start: 0, count: 1 }
    const { ticket } = await c.device.setIrqEventfds(request, o)
    await withFd(eventfdCreate(), (fd) => sendFds(ticket, [fd]))
  },
  disableIrqs: (c, o) => c.device.disableIrqs({ name: open(), index: random.below(3) }, o),
  exportDevice: async (c, o) => {
    const { ticket } = await c.device.exportFd({ name: open() }, o)
    await closeAll((await receiveFds(ticket)).fds)
  },
  exportMemory: async (c, o) => {
    const { ticket } = await c.memory.exportMemory({ memoryId: memory() }, o)
    await closeAll((await receiveFds(ticket)).fds)
  },
  track: (c, o) =>
    c.dirty.startTracking({ spaceId: space(), iommu: random.below(2) === 0, devices: [] }, o),
  untrack: (c, o) => c.dirty.stopTracking({ spaceId: space() }, o),
  readDirty: (c, o) => take(c.dirty.readDirty({ spaceId: space(), asRanges: true }, o), 3),
  readAndUnmap: (c, o) => take(c.dirty.readAndUnmap({ spaceId: space(), all: true }, o), 3),
  setState: (c, o) => {
    const state = `MIGRATION_STATE_${random.pick(STATES)}`
    return c.migration.setMigrationState({ name: open(), state }, o)
  },
  readSession: (c, o) => take(c.migration.readSession({ name: open() }, o), 3),
  writeSession: (c, o) => c.migration.writeSession(chunks(open()), o),
  watchEvents: (c, o) => take(c.ownership.watchEvents({}, o), 3),
  watchGroups: (c, o) => take(c.inventory.watchGroups({}, o), 3),
  handOver: async (c, o) => {
    const { token } = await c.ownership.handOver({}, o)
    writeFileSync(`${directory}/token-${number}`, token)
  },
  adopt: async (c, o) => {
    const tokens = readdirSync(directory).filter((name) => /^token-/.test(name))
    if (tokens.length === 0) return
    const file = `${directory}/${random.pick(tokens)}`
    const token = readFileSync(file, 'utf8')
    await c.ownership.adopt({ token }, o)
    rmSync(file, { force: true })
  },
}
/** What the others need is done more often. */
const names = [
  ...Object.keys(acts),
  ...['setUp', 'setUp', 'setUp', 'setUp', 'setState', 'adopt', 'readSession', 'track'],
  ...['addGroup', 'addGroup', 'map', 'map', 'map', 'open', 'open', 'open', 'update', 'update'],
]
/** These end only when they are told to. */
const ENDLESS = ['watchIrqs', 'watchEvents', 'watchGroups', 'writeSession']

const turns = async (count) => {
  for (let n = 0; n < count; n += 1) await new Promise((resolve) => setImmediate(resolve))
}

await obey(clients, async (callCount) => {
  let calls = 0
  let cancelled = 0
  const wrong = []
  const refusals = {}
  const done = {}
  const worker = async () => {
    while (calls < callCount) {
      calls += 1
      const name = calls % 8 === 1 ? 'look' : random.pick(names)
      const abort = new AbortController()
      if (ENDLESS.includes(name) || random.below(3) === 0) {
        cancelled += 1
        void turns(random.below(60)).then(() => abort.abort())
      }
      try {
        await acts[name](random.pick(clients), { signal: abort.signal })
        done[name] = (done[name] ?? 0) + 1
      } catch (error) {
        const { reason, status, message } = error
        const key = reason || status || error.code || 'no reason'
        refusals[key] = (refusals[key] ?? 0) + 1
        if (/^(BUG|INTERNAL|UNKNOWN|no reason)$/.test(key))
          wrong.push(`${name}: ${key}: ${message}`)
      }
    }
  }
  await Promise.all(Array.from({ length: WORKERS }, worker))
  return { calls, hostile: 0, cancelled, refusals, wrong, done }
})
