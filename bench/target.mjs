/**
 * A server that is measured, seen through the project's own client: vfiod with a device that is
 * open in an address space, or the C++ peer, which answers the same calls and has neither.
 */
import { Client, credentials } from '@grpc/grpc-js'
import { Chunk, HEAD_ROOM } from '../dist/base/chunk.js'
import { serverStreamCall } from '../dist/client/calls.js'
import { connect } from '../dist/client/client.js'
import { services } from '../dist/wire/protos.js'
import { MDEV, PCI_DEVICE } from './machine.mjs'

const SPACE = 'bench'
const MEMORY = 'bench'
const BIG_MEMORY = 'bench-big'

export const PAGE = 4096
/** Above everything that x86 reserves. */
const FIRST_IOVA = 1n << 32n
const BIG_IOVA = 1n << 36n
const CHUNK_BYTES = 1 << 20

const pageItem = (page) => ({
  iova: String(FIRST_IOVA + BigInt(page * PAGE)),
  length: String(PAGE),
  memoryId: MEMORY,
  offset: '0',
  access: 'ACCESS_READ_WRITE',
})

const requireOk = (results) => {
  const failed = results.find(({ code }) => code !== 0)
  if (failed !== undefined) throw new Error(`an item was refused: ${failed.message}`)
}

/** Chunks of one buffer: the client asks for the next when the one before is on its way. */
function* requests(bytes) {
  const buffer = Buffer.alloc(HEAD_ROOM + CHUNK_BYTES, 0x5a)
  yield { name: MDEV, offset: '0', data: Buffer.alloc(0) }
  for (let offset = 0; offset < bytes; offset += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, bytes - offset)
    yield new Chunk({ buffer, headRoom: HEAD_ROOM, length, offset: BigInt(offset) })
  }
}

const bytesOf = async (messages) => {
  let bytes = 0
  for await (const { data } of messages) bytes += data.length
  return bytes
}

/** What both have. */
class Target {
  constructor({ socket, pid }) {
    this.client = connect({ socket })
    this.pid = pid
  }

  state() {
    return this.client.migration.getMigrationState({ name: MDEV })
  }

  /** Maps pages `first` and following, in one call. */
  async map(first, count) {
    const items = Array.from({ length: count }, (_, index) => pageItem(first + index))
    requireOk((await this.client.addressSpace.map({ spaceId: SPACE, items })).results)
  }

  async unmap(first, count) {
    const items = Array.from({ length: count }, (_, index) => {
      const { iova, length } = pageItem(first + index)
      return { iova, length }
    })
    requireOk((await this.client.addressSpace.unmap({ spaceId: SPACE, items })).results)
  }

  /** One map of that many bytes. */
  async mapBig(length) {
    const item = { ...pageItem(0), iova: String(BIG_IOVA), length: String(length) }
    const items = [{ ...item, memoryId: BIG_MEMORY }]
    requireOk((await this.client.addressSpace.map({ spaceId: SPACE, items })).results)
  }

  readSession() {
    return bytesOf(this.client.migration.readSession({ name: MDEV }))
  }

  async writeSession(bytes) {
    const { totalBytes } = await this.client.migration.writeSession(requests(bytes))
    return Number(totalBytes)
  }

  close() {
    this.client.close()
  }
}

/** The C++ peer: it has nothing to prepare. */
export class PeerTarget extends Target {
  async startSaving() {}
  async startResuming() {}
  async endSession() {}
  async allocateBig() {}
  async freeBig() {}
}

export class VfiodTarget extends Target {
  /** Everything that a call needs in order to be answered. */
  async prepare() {
    const { inventory, addressSpace, memory, device } = this.client
    await addressSpace.createSpace({ spaceId: SPACE })
    for (const name of [PCI_DEVICE, MDEV]) {
      const { device: found } = await inventory.getDevice({ name })
      await addressSpace.addGroup({ spaceId: SPACE, groupId: found.groupId })
    }
    await device.openDevice({ spaceId: SPACE, name: MDEV })
    await memory.allocateMemory({ memoryId: MEMORY, length: String(PAGE) })
    return this
  }

  startSaving() {
    return this.#set('MIGRATION_STATE_STOP_COPY')
  }

  startResuming() {
    return this.#set('MIGRATION_STATE_RESUMING')
  }

  /** What was written is not a state of the simulated device, so it has to be reset. */
  async endSession() {
    await this.client.device.resetDevice({ name: MDEV })
  }

  async allocateBig(length) {
    await this.client.memory.allocateMemory({ memoryId: BIG_MEMORY, length: String(length) })
  }

  async freeBig() {
    await this.client.addressSpace.unmap({ spaceId: SPACE, all: true })
    await this.client.memory.releaseMemory({ memoryId: BIG_MEMORY })
  }

  #set(state) {
    return this.client.migration.setMigrationState({ name: MDEV, state })
  }
}

/** A vfiod that is prepared already, whose sessions are read with grpc-js as it comes. */
export class PlainReader extends VfiodTarget {
  #channel
  #read

  constructor(server) {
    super(server)
    this.#channel = new Client(`unix:${server.socket}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    })
    this.#read = serverStreamCall(this.#channel, services.migration.ReadSession)
  }

  readSession() {
    return bytesOf(this.#read({ name: MDEV }))
  }

  close() {
    super.close()
    this.#channel.close()
  }
}
