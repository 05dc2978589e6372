/** Every maximum in one place, each with why it is that number. */

export const LIMITS = {
  /** Items in one Map, Unmap or UpdateVaddr call: half a second of kernel work at 10 us each. */
  batchItems: 8192,
  /** Bytes in one ReadRegion or WriteRegion call: below the 4 MiB that clients receive by default. */
  regionBytes: 1 << 20,
  /** Bytes of device state in one stream message: larger ones cost more in framing than they save. */
  chunkBytes: 1 << 20,
  /**
   * Memory of a saving session for the bytes that were read last: more than a client, two sockets and
   * the daemon have in flight, so that a reader whose connection broke can continue.
   */
  sessionWindowBytes: 16 << 20,
  /** Bytes of dirty bitmaps in one stream message: 8 GiB of memory, well below what clients take. */
  dirtyBytes: 1 << 18,
  /** Dirty ranges in one stream message: about as many bytes. */
  dirtyRanges: 8192,
  /** Fields of one item of a batch. */
  itemFields: 8,
  /** Bytes of one incoming gRPC message: a full chunk or a full batch, with its framing. */
  messageBytes: 4 << 20,
  /** Bytes of a request that carries neither a batch nor the bytes of a device. */
  requestBytes: 64 << 10,
  /** New connections of one identity per second, and how many at once: each is identified and shakes
   * hands at the cost of a few calls. */
  connectionsPerSecond: 128,
  connectionsAtOnce: 512,
  /** The same of all identities together, without those of the role admin. */
  connectionsPerSecondOfAll: 1024,
  connectionsAtOnceOfAll: 2048,
  /** New streams of one identity per second, and at once: about as many calls as a daemon can serve. */
  streamsPerSecond: 4096,
  /** The same where the policy grants nothing: health probes, and first tries. */
  streamsPerSecondUngranted: 64,
  /** Address spaces, memory objects and open devices of one client. */
  objectsPerClient: 4096,
  /** Tickets that one client may hold at once. */
  ticketsPerClient: 256,
  /** Exported fds of one group that the daemon remembers, to say who keeps the group. */
  exportsKnown: 64,
  /** Faults of a simulated machine. */
  faults: 256,
  /** How long a ticket works. */
  ticketMs: 30_000,
  /** Fds in one packet: SCM_MAX_FD of the kernel. */
  fdsPerPacket: 253,
  /** Vectors of one IRQ index: MSI-X has at most 2048 (PCI specification). */
  irqVectors: 2048,
  /** Events that wait for a slow watcher before its stream is ended. */
  eventBacklog: 1024,
  /** How long the offer of a handover is valid. */
  handoverMs: 600_000,
  /** How long a vaddr may stay invalid before the daemon restores it. */
  vaddrInvalidMs: 60_000,
  /** Bytes one Allocate may ask for: what an x86-64 guest can address at most. */
  allocateBytes: 1n << 46n,
  /** How long a caller waits for a step of the kernel that may never end; the step goes on. */
  patienceMs: 10_000,
  /** Characters of a client-chosen id. */
  idLength: 64,
} as const
