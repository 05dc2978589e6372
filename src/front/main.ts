/**
 * The process of a front. Its ends of the link are fds 3 to 7 where the daemon started it; where a
 * service manager did (bin/vfiod-front), they come on the connection that VFIOD_FRONT_CONNECTION names.
 */
import { readdirSync, readFileSync, readlinkSync, writeFileSync, writeSync } from 'node:fs'
import { LINK_MEMORY } from '../link/slots.ts'
import { channelsOf } from '../os/channels.ts'
import { SeqpacketConnection } from '../os/fd-passing.ts'
import { leave } from '../os/leave.ts'
import { setRlimit, tuneCollector, tuneMalloc } from '../os/limits.ts'
import { mapFd } from '../os/memory.ts'
import { forbidTheRest } from '../os/seccomp.ts'
import { Front } from './front.ts'

/** Of the channels (ChannelFds, in its order) and the memory. */
type LinkFds = readonly [number, number, number, number, number]

/** Bytes of heap and buffers: RLIMIT_DATA. */
const DATA_MAX = 3n << 29n

/** When memory is short the kernel takes a front, and not the daemon, from which it has its score. */
const OOM_SCORE = 500
const OOM_FILE = '/proc/self/oom_score_adj'

tuneMalloc()
tuneCollector()
if (Number(readFileSync(OOM_FILE, 'utf8')) < OOM_SCORE) writeFileSync(OOM_FILE, `${OOM_SCORE}`)

// The daemon ends it; a signal to the whole group is for the daemon.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

/** The pid goes to the one who waits for it on stdout, and knows by it that the connection is left to him. */
const takeLink = async (connection: number): Promise<LinkFds> => {
  const owner = new SeqpacketConnection(connection)
  const packet = await owner.receive()
  if (typeof packet === 'number' || packet.bytes.length === 0) return leave(0)
  const { fds } = packet
  if (fds.length !== 5) throw new Error(`Cannot take the link: ${fds.length} fds came with it`)
  owner.close()
  writeSync(1, `${process.pid}\n`)
  return fds as unknown as LinkFds
}

const openFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      // The folder itself, which is closed by now.
      return []
    }
  })

const { VFIOD_FRONT_UID: uid, VFIOD_FRONT_CONNECTION: connection } = process.env
const [incoming, outgoing, packets, uplink, memory] =
  connection === undefined ? ([3, 4, 5, 6, 7] as const) : await takeLink(Number(connection))

const mapped = await mapFd(memory, {
  offset: 0n,
  length: BigInt(LINK_MEMORY),
  access: 'read-write',
})
if (typeof mapped === 'number')
  throw new Error(`Cannot map the memory of the link: errno ${-mapped}`)
const { buffer, byteOffset } = mapped.bytes

new Front({
  ...channelsOf({ incoming, outgoing, packets, uplink }),
  memory: Buffer.from(buffer, byteOffset, LINK_MEMORY),
  onEnd: () => leave(0),
})

// Libuv makes a ring as it starts, unless the starter of a front forbids it: it would be a way around seccomp.
if (openFiles().includes('anon_inode:[io_uring]'))
  throw new Error('Cannot give up rights: this process has an io_uring, which seccomp does not see')

// All that it needs is open. A front that grows beyond this ends, and costs its connections.
setRlimit('data', { current: DATA_MAX, max: DATA_MAX })
if (uid !== undefined) {
  process.setgroups?.([])
  process.setgid?.(Number(uid))
  process.setuid?.(Number(uid))
}
const answer = forbidTheRest()
if (answer < 0) throw new Error(`Cannot give up rights: errno ${-answer}`)
