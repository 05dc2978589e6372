/** Files of every kind to send over the fd channel, and packets that carry them. */

import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { eventfdCreate } from '../../src/os/eventfd.ts'
import { connectSeqpacket } from '../../src/os/fd-passing.ts'
import { O_RDONLY, O_RDWR, sys } from '../../src/os/libc.ts'
import { addSeals, memfdCreate, SEALS } from '../../src/os/memory.ts'
import { openPidfd } from '../../src/os/process.ts'
import type { SoakDaemon } from './daemon.ts'
import type { Random } from './random.mjs'

const FDS_MAX = 253
const O_PATH = 0o10000000

const sealed = (seals: number): number => {
  const fd = memfdCreate('sealed', 8192n)
  addSeals(fd, seals)
  return fd
}

export class FdPool {
  readonly fds: readonly number[]
  readonly #connections: { close(): void }[] = []

  constructor({ directory, fdSocket }: SoakDaemon) {
    const [folder, file, fifo] = ['folder', 'file', 'fifo'].map(
      (name) => `${directory}/${name}`,
    ) as [string, string, string]
    mkdirSync(folder, { recursive: true })
    writeFileSync(file, 'x'.repeat(8192))
    execFileSync('mkfifo', [fifo])
    const connection = connectSeqpacket(fdSocket)
    if (typeof connection === 'number') throw new Error(`cannot connect: ${connection}`)
    this.#connections.push(connection)
    const memfd = memfdCreate('plain', 8192n)
    this.fds = [
      memfd,
      sys.openSync(`/proc/self/fd/${memfd}`, O_RDONLY),
      memfdCreate('empty', 0n),
      memfdCreate('odd', 5000n),
      sealed(SEALS.SHRINK),
      sealed(SEALS.SHRINK | SEALS.GROW | SEALS.WRITE | SEALS.SEAL),
      sealed(SEALS.SEAL),
      sys.openSync(folder, O_RDONLY),
      sys.openSync(file, O_RDWR),
      sys.openSync(file, O_PATH),
      sys.openSync(fifo, O_RDWR),
      sys.openSync('/dev/null', O_RDWR),
      sys.openSync('/dev/zero', O_RDWR),
      sys.openSync('/proc/self/mem', O_RDWR),
      eventfdCreate(),
      openPidfd(process.pid),
      // A socket that carries a socket that carries ...
      connection.fd,
    ]
    const missing = this.fds.findIndex((fd) => fd < 0)
    if (missing >= 0) throw new Error(`no fd number ${missing}: ${this.fds[missing]}`)
  }

  close(): void {
    for (const fd of this.fds.slice(0, -1)) sys.closeSync(fd)
    for (const connection of this.#connections) connection.close()
  }
}

/** One packet on a connection of its own, sometimes with the ticket, and what the daemon answers. */
export async function junkPacket(
  { fdSocket }: SoakDaemon,
  pool: FdPool,
  random: Random,
  ticket: string,
  // biome-ignore lint/suspicious/noExplicitAny: whatever the daemon answers, as JSON.
): Promise<any> {
  const connection = connectSeqpacket(fdSocket)
  if (typeof connection === 'number') throw new Error(`cannot connect: ${connection}`)
  try {
    const junk = random.bytes(1 + random.below(3000))
    const bytes = random.below(4) > 0 && ticket !== '' ? Buffer.from(ticket) : junk
    const count = random.pick([0, 1, 1, 1, 1, 2, random.below(FDS_MAX), FDS_MAX])
    const fds = Array.from({ length: count }, () => random.pick(pool.fds))
    const sent = connection.send(bytes, fds)
    if (sent < 0) throw new Error(`cannot send: ${sent}`)
    const packet = await connection.receive()
    if (typeof packet === 'number') throw new Error(`no answer: ${packet}`)
    return JSON.parse(Buffer.from(packet.bytes).toString())
  } finally {
    connection.close()
  }
}
