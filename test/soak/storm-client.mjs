// One client of the storm: node storm-client.mjs SOCKET SEED NUMBER CLIENTS DIRECTORY
// Half of its calls use what it owns, and each has to do what it should; the other half tries what
// belongs to others, by guessed ids and under false names, and each has to be refused. After a round it
// says how many calls it made, which refusals it got and everything that was wrong.

import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from '../../dist/client/client.js'
import { receiveFds } from '../../dist/client/fd-channel.js'
import { requireItems } from '../../dist/client/item-status.js'
import { closeAll } from '../../dist/os/unix-socket.js'
import { Random } from './random.mjs'
import { obey } from './storm-round.mjs'

const [socket, seed, number, clientCount, directory] = process.argv.slice(2)
const clients = Number(clientCount)
const random = new Random(Number(seed) + Number(number) * 7919)
const client = connect({ socket })
const ids = Array.from({ length: clients * 2 }, (_, n) => `vm-${n}`)
const spaces = new Set()
const memories = new Set()
const wrong = []
const refusals = {}
let calls = 0
let hostile = 0

const REFUSED = ['NOT_MM_OWNER', 'NO_SUCH_SPACE', 'NO_SUCH_MEMORY']
const strange = (owned) => random.pick(ids.filter((id) => !owned.has(id)))
const mine = (owned) => random.pick([...owned])
const item = (memoryId) => ({
  iova: String(65536 * (1 + random.below(4))),
  length: '4096',
  memoryId,
  offset: '0',
  access: 'ACCESS_READ_WRITE',
})
const map = async (spaceId, memoryId, options) => {
  const answer = await client.addressSpace.map({ spaceId, items: [item(memoryId)] }, options)
  requireItems('Map', answer.results)
}
const spoofed = () => {
  const victim = random.below(clients)
  const connection = `connection:${1 + random.below(clients)}`
  return {
    headers: {
      'x-vfiod-uid': '0',
      'x-vfiod-pid': String(random.below(32768)),
      'x-vfiod-client-id': `${process.pid - victim}-${victim}`,
      'x-forwarded-for': connection,
      'remote-addr': connection,
      'x-peer': connection,
      authorization: 'Bearer root',
    },
  }
}
const ticketFile = (of) => `${directory}/ticket-${of}`
const stolenTicket = () => {
  const others = Array.from({ length: clients }, (_, n) => n).filter((n) => n !== Number(number))
  try {
    return JSON.parse(readFileSync(ticketFile(random.pick(others)), 'utf8'))
  } catch {
    return {
      socketPath: socket.replace('vfiod.sock', 'fds.sock'),
      ticket: random.bytes(32).toString('hex'),
    }
  }
}

const trespass = {
  listMappings: (with_) => client.addressSpace.listMappings({ spaceId: strange(spaces) }, with_),
  destroy: (with_) => client.addressSpace.destroySpace({ spaceId: strange(spaces) }, with_),
  addGroup: (with_) =>
    client.addressSpace.addGroup({ spaceId: strange(spaces), groupId: random.below(12) }, with_),
  map: (with_) => map(strange(spaces), random.pick(ids), with_),
  mapTheirs: (with_) => map(mine(spaces) ?? strange(spaces), strange(memories), with_),
  unmap: (with_) => client.addressSpace.unmap({ spaceId: strange(spaces), all: true }, with_),
  release: (with_) => client.memory.releaseMemory({ memoryId: strange(memories) }, with_),
  export: (with_) => client.memory.exportMemory({ memoryId: strange(memories) }, with_),
  adopt: (with_) => client.ownership.adopt({ token: random.bytes(32).toString('hex') }, with_),
  releaseClient: (with_) =>
    client.admin.releaseClient(
      { clientId: `${process.pid + random.below(9) - 4}-${random.below(clients)}` },
      with_,
    ),
  listClients: (with_) => client.admin.listClients({}, with_),
  ticket: () => receiveFds(stolenTicket()),
}
const MAY_REFUSE = {
  mapTheirs: ['SPACE_NOT_READY'],
  adopt: ['BAD_TICKET'],
  releaseClient: ['ROLE_NEEDED'],
  listClients: ['ROLE_NEEDED'],
  ticket: ['BAD_TICKET'],
}

const checkOwner = (what, owner) => {
  const { pid, uid } = owner.process ?? owner
  if (pid !== process.pid || uid !== process.getuid())
    throw new Error(`${what} is said to be of pid ${pid}, uid ${uid}`)
}
const checkSame = (what, found, known) => {
  if ([...found].sort().join() !== [...known].sort().join())
    throw new Error(`${what}: ${[...found]} instead of ${[...known]}`)
}

const errand = {
  createSpace: async () => {
    const { space } = await client.addressSpace.createSpace({ spaceId: random.pick(ids) })
    checkOwner('a space', space.owner)
    spaces.add(space.spaceId)
  },
  allocate: async () => {
    const request = { memoryId: random.pick(ids), length: '8192' }
    const { memory } = await client.memory.allocateMemory(request)
    checkOwner('memory', memory.owner)
    memories.add(memory.memoryId)
  },
  destroy: async () => {
    const spaceId = mine(spaces)
    await client.addressSpace.destroySpace({ spaceId })
    spaces.delete(spaceId)
  },
  release: async () => {
    const memoryId = mine(memories)
    await client.memory.releaseMemory({ memoryId })
    memories.delete(memoryId)
  },
  export: async () => {
    const { ticket } = await client.memory.exportMemory({ memoryId: mine(memories) })
    calls += 1
    await closeAll((await receiveFds(ticket)).fds)
  },
  leaveTicket: async () => {
    const { ticket } = await client.memory.exportMemory({ memoryId: mine(memories) })
    writeFileSync(ticketFile(number), JSON.stringify(ticket))
  },
  addGroup: () =>
    client.addressSpace.addGroup({ spaceId: mine(spaces), groupId: random.below(12) }),
  map: () => map(mine(spaces), mine(memories)),
  unmap: () => client.addressSpace.unmap({ spaceId: mine(spaces), all: true }),
  who: async () => checkOwner('the caller', await client.ownership.whoAmI({}, spoofed())),
  listMemory: async () => {
    const listed = (await client.memory.listMemory({}, spoofed())).memories
    checkSame('memory', new Set(listed.map(({ memoryId }) => memoryId)), memories)
  },
  listSpaces: async () => {
    const listed = (await client.addressSpace.listSpaces()).spaces
    const own = listed.filter(({ owner }) => owner.process?.pid === process.pid)
    checkSame('spaces', new Set(own.map(({ spaceId }) => spaceId)), spaces)
  },
}
const STRUCK = ['KERNEL_REFUSED', 'OUT_OF_MEMORY', 'KERNEL_NOT_DONE']
const NEEDS = {
  destroy: [spaces],
  release: [memories],
  export: [memories],
  leaveTicket: [memories],
  addGroup: [spaces],
  map: [spaces, memories],
  unmap: [spaces],
}
const ERRAND_REFUSED = {
  createSpace: ['NOT_MM_OWNER'],
  allocate: ['NOT_MM_OWNER'],
  release: ['MEMORY_IN_USE'],
  leaveTicket: ['LIMIT_REACHED'],
  // Faults of the kernel strike these.
  addGroup: ['GROUP_IN_USE', 'GROUP_NOT_VIABLE', 'NO_SUCH_GROUP', 'ID_IN_USE', ...STRUCK],
  map: ['SPACE_NOT_READY', 'IOVA_IN_USE', ...STRUCK],
  unmap: ['SPACE_NOT_READY'],
}

const attempt = async (name, work, mayRefuse) => {
  try {
    await work()
    return true
  } catch (error) {
    const { reason, message } = error
    if (!mayRefuse.includes(reason)) wrong.push(`${name}: ${reason}: ${message}`)
    refusals[reason] = (refusals[reason] ?? 0) + 1
    return false
  }
}

await obey([client], async (callCount) => {
  calls = 0
  hostile = 0
  wrong.length = 0
  for (const reason of Object.keys(refusals)) delete refusals[reason]
  while (calls < callCount) {
    calls += 1
    if (random.below(2) === 0) {
      hostile += 1
      const name = random.pick(Object.keys(trespass))
      const mayRefuse = [...REFUSED, ...(MAY_REFUSE[name] ?? [])]
      if (await attempt(name, () => trespass[name](spoofed()), mayRefuse))
        wrong.push(`${name} was allowed`)
      continue
    }
    const possible = Object.keys(errand).filter((name) =>
      (NEEDS[name] ?? []).every(({ size }) => size > 0),
    )
    const name = random.pick(possible)
    await attempt(name, errand[name], ERRAND_REFUSED[name] ?? [])
  }
  return { calls, hostile, refusals, wrong }
})
