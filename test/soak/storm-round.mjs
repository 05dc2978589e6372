// What clients of the storm have in common: a round of calls when they are told to, and then a report of
// what they own, of which the books of the daemon must be the sum.
import { createInterface } from 'node:readline'

const all = async (list, key) => {
  const found = []
  let pageToken = ''
  do {
    const page = await list({ pageToken })
    found.push(...page[key])
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  return found
}

/** Memories of the client, and devices of it that have a session. */
const owned = async (client, clientId) => {
  const memories = await all(client.memory.listMemory, 'memories')
  const spaces = await all(client.addressSpace.listSpaces, 'spaces')
  const own = spaces.filter(({ owner }) => owner.clientId === clientId)
  const sessions = []
  for (const name of own.flatMap(({ devices }) => devices)) {
    const { session } = await client.migration.getMigrationState({ name }).catch((error) => {
      // Of a device that cannot migrate.
      if (error.reason === 'UNSUPPORTED') return { session: null }
      throw error
    })
    if (session !== null) sessions.push(name)
  }
  return {
    memories: memories.map(({ memoryId, length, allocated, views, owner }) => {
      if (owner.clientId !== clientId) throw new Error(`${memoryId} is of ${owner.clientId}`)
      return { memoryId, length, allocated, views }
    }),
    spaces: own.map(({ spaceId }) => spaceId),
    sessions,
  }
}

/** `round(calls)` makes them and answers what to report of them; `clients` are its connections. */
export const obey = async (clients, round) => {
  const [client] = clients
  // Each connection is made before the books are looked at.
  const names = await Promise.all(clients.map(({ ownership }) => ownership.whoAmI({})))
  const { clientId, identity } = names[0]
  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`)
  for await (const line of createInterface({ input: process.stdin })) {
    const { calls } = JSON.parse(line)
    const made = calls === 0 ? {} : await round(calls)
    const report = await owned(client, clientId).catch(({ message }) => ({ failed: message }))
    say({ ...made, clientId, identity, pid: process.pid, connections: clients.length, ...report })
  }
}
