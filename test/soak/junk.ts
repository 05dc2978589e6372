/** Junk thrown at the sockets of a daemon, as fuzz.test.ts and junk.test.ts do. */

import { writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { connect } from '../../src/client/client.ts'
import type { Certificates } from '../../src/link/records.ts'
import type { SoakDaemon } from './daemon.ts'
import { record } from './fuzz-bytes.ts'
import type { Random } from './random.mjs'

export const REMOTE = 'spiffe://fuzz'

/** For a daemon of which both this user and the client with the name above are admins. */
export const POLICY = `
[[rule]]
user = ${process.getuid?.() ?? 0}
role = "admin"
[[rule]]
remote = "${REMOTE}"
role = "admin"
`

/** The configuration of a daemon that listens with these certificates, which it reads from `folder`. */
export const listening = (folder: string, certificates: Certificates): string => {
  const files = (['ca', 'cert', 'key'] as const).map((name) => {
    const file = `${folder}/fuzz-${name}`
    writeFileSync(file, certificates[name])
    return `tls_${name} = "${file}"\n`
  })
  return `listen = "127.0.0.1:0"\nlease_ms = 500\n${files.join('')}`
}

/** What a client says to the daemon in two calls, one of which leaves the memory `fuzz`. */
export const recordedAt = async (daemon: SoakDaemon): Promise<Buffer> => {
  const via = `${daemon.directory}/recorder.sock`
  return record(daemon.socket, via, async () => {
    const recording = connect({ socket: via })
    await recording.memory.allocateMemory({ memoryId: 'fuzz', length: '4096' })
    await recording.memory.listMemory()
    recording.close()
  })
}

/** Write junk in pieces, do something else, and hang up; the other side may do so whenever it likes. */
export const throwAt = async (
  socket: Socket,
  random: Random,
  junk: Buffer,
  meanwhile: () => Promise<unknown>,
): Promise<void> => {
  socket.on('error', () => undefined)
  socket.resume()
  for (let at = 0; at < junk.length; ) {
    const size = 1 + random.below(600)
    socket.write(junk.subarray(at, at + size))
    at += size
    if (random.below(3) === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  if (random.below(2) === 0) socket.end()
  await meanwhile()
  socket.destroy()
}

/** What comes instead of a TLS handshake: a record that says it is one, or anything. */
export const handshakeJunk = (random: Random): Buffer => {
  const record = Buffer.from([22, 3, 1, 1, random.below(256)])
  const hello = Buffer.concat([record, random.bytes(300)])
  return random.below(2) === 0 ? hello : random.bytes(1 + random.below(1000))
}
