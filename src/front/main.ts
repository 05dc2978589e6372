/** The process of a front. It is started by the daemon, with its ends of the link as fds 3 to 6. */
import { Socket } from 'node:net'
import { LINK_MEMORY } from '../link/slots.ts'
import { SeqpacketConnection } from '../os/fd-passing.ts'
import { setRlimit, tuneCollector, tuneMalloc } from '../os/limits.ts'
import { mapFd } from '../os/memory.ts'
import { forbidTheRest } from '../os/seccomp.ts'
import { Front } from './front.ts'

const FRAMES = 3
const PACKETS = 4
const UPLINK = 5
const MEMORY = 6

/** Bytes of heap and buffers: RLIMIT_DATA. */
const DATA_MAX = 3n << 29n

tuneMalloc()
tuneCollector()

// The daemon ends it; a signal to the whole group is for the daemon.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

const mapped = await mapFd(MEMORY, {
  offset: 0n,
  length: BigInt(LINK_MEMORY),
  access: 'read-write',
})
if (typeof mapped === 'number')
  throw new Error(`Cannot map the memory of the link: errno ${-mapped}`)
const { buffer, byteOffset } = mapped.bytes

new Front({
  frames: new Socket({ fd: FRAMES }),
  packets: new SeqpacketConnection(PACKETS),
  uplink: new SeqpacketConnection(UPLINK),
  memory: Buffer.from(buffer, byteOffset, LINK_MEMORY),
  onEnd: () => process.exit(0),
})

// All that it needs is open. A front that grows beyond this ends, and costs its connections.
setRlimit('data', { current: DATA_MAX, max: DATA_MAX })
const { VFIOD_FRONT_UID: uid } = process.env
if (uid !== undefined) {
  process.setgroups?.([])
  process.setgid?.(Number(uid))
  process.setuid?.(Number(uid))
}
const answer = forbidTheRest()
if (answer < 0) throw new Error(`Cannot give up rights: errno ${-answer}`)
