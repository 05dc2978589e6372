// A hostile client: `attacker.mjs KIND TARGET`, which is a socket or what http2.mjs says. It writes the
// line "attacking" once it has begun, and goes on until it is killed. What is refused is tried again: a client is free to.

import { gzipSync } from 'node:zlib'
import * as frames from './frames.mjs'
import {
  clientAt,
  ended,
  message,
  rawConnection,
  session,
  stream,
  withoutCertificate,
} from './http2.mjs'

const [kind, socket] = process.argv.slice(2)

let hasBegun = false
const attacking = () => {
  if (!hasBegun) process.stdout.write('attacking\n')
  hasBegun = true
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const forEver = async (work) => {
  for (;;) {
    await work().catch(() => undefined)
    attacking()
    await pause(1)
  }
}
const times = (count, work) => Promise.all(Array.from({ length: count }, (_, each) => work(each)))

const MESSAGE_MAX = (4 << 20) - 16
/** Nothing but empty items of a field. */
const items = (field, size) => Buffer.alloc(size, Buffer.from([field * 8 + 2, 0]))

const METHODS = {
  map: 'vfiod.v1.AddressSpaceService/Map',
  unmap: 'vfiod.v1.AddressSpaceService/Unmap',
  readAndUnmap: 'vfiod.v1.DirtyService/ReadAndUnmap',
  bind: 'vfiod.v1.InventoryService/BindDevices',
  who: 'vfiod.v1.OwnershipService/WhoAmI',
  events: 'vfiod.v1.OwnershipService/WatchEvents',
  groups: 'vfiod.v1.InventoryService/WatchGroups',
  spaces: 'vfiod.v1.AddressSpaceService/ListSpaces',
  reflection: 'grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
  health: 'grpc.health.v1.Health/Watch',
}

/** Calls with this body, some at a time, on one session after another. */
const callsWith = (body, methods, more = {}) =>
  forEver(async () => {
    const on = await session(socket)
    await times(8, async (each) => {
      const call = stream(on, methods[each % methods.length], more)
      call?.resume()
      call?.end(body)
      attacking()
      await ended(call)
    })
    on?.destroy()
  })

/** Sessions that ask on every stream they may have and read nothing, kept. */
const unread = async (method, body, { sessions = 8, settings = { initialWindowSize: 0 } } = {}) => {
  await times(sessions, async () => {
    const on = await session(socket, settings)
    for (let each = 0; each < 127; each += 1) stream(on, method)?.end(body)
  })
  await pause(50)
  attacking()
}

/** The head of a handshake of 16 KiB. */
const HALF_HELLO = Buffer.from([22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3])

const shakeHands = async () => {
  const connection = withoutCertificate(socket)
  connection.on('error', () => undefined)
  connection.resume()
  await ended(connection)
  attacking()
}

const client = () => clientAt(socket)

const aGroup = async (from) => {
  const { groups } = await from.inventory.listGroups()
  return groups.find(({ devices }) => devices.some(({ name }) => name.startsWith('83b8')))
}

const KINDS = {
  // Work before it is known whether it may be done, and more of it than bytes.
  packed: () => {
    const body = message(gzipSync(items(2, MESSAGE_MAX), { level: 9 }), { isPacked: true })
    return callsWith(body, [METHODS.map], { 'grpc-encoding': 'gzip' })
  },
  'packed by deflate': () =>
    callsWith(message(Buffer.alloc(4096), { isPacked: true }), [METHODS.unmap], {
      'grpc-encoding': 'deflate',
    }),
  items: () => callsWith(message(items(2, MESSAGE_MAX)), [METHODS.map]),
  'items of other methods': () =>
    callsWith(message(items(1, MESSAGE_MAX)), [METHODS.unmap, METHODS.readAndUnmap, METHODS.bind]),
  'nested groups': () =>
    callsWith(message(Buffer.alloc(60 << 10, 0x0b)), [METHODS.map, METHODS.who]),
  'unknown fields': () =>
    callsWith(message(Buffer.alloc(60 << 10, Buffer.from([0x78, 1]))), [METHODS.who, METHODS.map]),

  // More calls, and longer ones, than the daemon has turns for.
  batches: async () => {
    const from = client()
    const group = await aGroup(from)
    await from.addressSpace.createSpace({ spaceId: 'batches' })
    await from.addressSpace.addGroup({ spaceId: 'batches', groupId: group.groupId })
    await from.memory.allocateMemory({ memoryId: 'batches', length: String(1 << 25) })
    await times(6, (each) => {
      const mapped = Array.from({ length: 8192 }, (_, item) => ({
        iova: String((each * 8192 + item) * 8192),
        length: '4096',
        memoryId: 'batches',
        offset: String(item * 4096),
        access: 'ACCESS_READ_WRITE',
      }))
      const unmapped = mapped.map(({ iova, length }) => ({ iova, length }))
      return forEver(async () => {
        attacking()
        await from.addressSpace.map({ spaceId: 'batches', items: mapped })
        await from.addressSpace.unmap({ spaceId: 'batches', items: unmapped })
      })
    })
  },
  calls: async () => {
    const all = Array.from({ length: 8 }, client)
    await times(512, (each) => forEver(() => all[each % 8].ownership.whoAmI()))
  },
  'long answers': async () => {
    const all = Array.from({ length: 4 }, client)
    await times(256, (each) =>
      forEver(async () => {
        await all[each % 4].inventory.listGroups()
        await all[each % 4].inventory.listDevices()
      }),
    )
  },
  'cancelled calls': async () => {
    const from = client()
    await times(64, () =>
      forEver(async () => {
        const abort = new AbortController()
        const call = from.memory.allocateMemory({ length: '4096' }, { signal: abort.signal })
        setImmediate(() => abort.abort())
        const { memory } = await call
        await from.memory.releaseMemory({ memoryId: memory.memoryId })
      }),
    )
  },

  // Handshakes of somebody who has no certificate, whole and half.
  handshakes: () => times(16, () => forEver(() => shakeHands())),
  'half handshakes': () =>
    times(300, () =>
      forEver(async () => {
        const connection = await rawConnection(socket)
        connection?.write(HALF_HELLO)
        attacking()
        await ended(connection)
      }),
    ),

  // What is begun and not ended, asked and not read.
  uploads: async () => {
    const body = message(Buffer.alloc(MESSAGE_MAX - 4096), { length: MESSAGE_MAX })
    await forEver(async () => {
      await times(4, async () => {
        const on = await session(socket)
        for (let each = 0; each < 127; each += 1) stream(on, METHODS.map)?.write(body)
      })
      attacking()
      await pause(1000)
    })
  },
  'uploads without a role': async () => {
    await times(8, async () => {
      const on = await session(socket)
      const body = message(Buffer.alloc(60 << 10), { length: 64 << 10 })
      for (let each = 0; each < 127; each += 1) stream(on, METHODS.health)?.write(body)
    })
    await pause(100)
    attacking()
  },
  'unread lists': async () => {
    const from = client()
    await times(1000, (each) =>
      from.addressSpace.createSpace({ spaceId: `${'x'.repeat(50)}-${each}` }),
    )
    await forEver(() => unread(METHODS.spaces, message()))
  },
  'unread events': async () => {
    await unread(METHODS.events, message())
    const from = client()
    await times(16, () => forEver(() => from.ownership.handOver({ deadlineMs: 600_000 })))
  },
  'unread reflection': async () => {
    const on = await session(socket, { initialWindowSize: 0 })
    const name = Buffer.from('vfiod.v1.AddressSpaceService')
    const request = message(Buffer.concat([Buffer.from([0x22, name.length]), name]))
    const requests = Buffer.concat(Array.from({ length: 1000 }, () => request))
    await forEver(async () => {
      const call = stream(on, METHODS.reflection)
      for (let each = 0; each < 20; each += 1) call?.write(requests)
      await pause(20)
    })
  },
  'unread health': () => unread(METHODS.health, message()),
  'unread groups': () => unread(METHODS.groups, message(), { sessions: 4 }),

  // Places that others need.
  watches: async () => {
    const from = client()
    const watch = async (calls) => {
      for await (const _ of calls) attacking()
    }
    await times(64, () => watch(from.inventory.watchGroups({})).catch(attacking))
  },
  'sparse memory': async () => {
    const from = client()
    for (let size = 1n << 46n; size >= 4096n; ) {
      try {
        await from.memory.allocateMemory({ length: String(size) })
      } catch {
        size >>= 1n
      }
    }
    attacking()
  },
  'tracked memory': async () => {
    const from = client()
    const group = await aGroup(from)
    await from.addressSpace.createSpace({ spaceId: 'tracked' })
    await from.addressSpace.addGroup({ spaceId: 'tracked', groupId: group.groupId })
    const length = String(1n << 40n)
    await from.memory.allocateMemory({ memoryId: 'tracked', length })
    const whole = { iova: '0', length, memoryId: 'tracked', offset: '0' }
    const items = [{ ...whole, access: 'ACCESS_READ_WRITE' }]
    await from.addressSpace.map({ spaceId: 'tracked', items })
    await from.dirty.startTracking({ spaceId: 'tracked', iommu: true })
    await forEver(async () => {
      for await (const _ of from.dirty.readDirty({ spaceId: 'tracked', peek: true })) attacking()
    })
  },
  'small memory': async () => {
    const from = client()
    await times(64, async () => {
      for (let each = 0; each < 100; each += 1)
        await from.memory.allocateMemory({ length: '4096' }).catch(() => undefined)
    })
    attacking()
  },
  tickets: async () => {
    const from = client()
    await times(300, () => from.memory.registerMemory({}).catch(() => undefined))
    attacking()
  },
  ...Object.fromEntries(
    Object.entries(frames.KINDS).map(([name, attack]) => [
      name,
      () => attack(socket, { attacking, pause, forEver, times }),
    ]),
  ),
}

// It ends with the test that started it, however that ends.
process.stdin.resume().once('close', () => process.exit())
process.on('uncaughtException', attacking)
process.on('unhandledRejection', attacking)
await KINDS[kind]()
