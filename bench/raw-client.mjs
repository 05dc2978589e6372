/** The client of the raw peer; see raw-server.mjs. */
import { once } from 'node:events'
import { createConnection } from 'node:net'

const CHUNK = Buffer.alloc(1 << 20, 0x5a)

const PING = Buffer.alloc(32)

/** `ping` sends 32 bytes and waits until they are back; several may be under way. */
export const rawPing = async (path) => {
  const socket = createConnection(path)
  await once(socket, 'connect')
  socket.write('p')
  const waiting = []
  let back = 0
  socket.on('data', (data) => {
    for (back += data.length; back >= PING.length; back -= PING.length) waiting.shift()()
  })
  const ping = () =>
    new Promise((resolve) => {
      waiting.push(resolve)
      socket.write(PING)
    })
  return { ping, close: () => socket.destroy() }
}

/** Reads a session of that many bytes; answers how many there were. */
export const rawRead = (path, bytes) =>
  new Promise((resolve, reject) => {
    let taken = 0
    const onread = {
      buffer: Buffer.allocUnsafeSlow(1 << 20),
      callback: (length) => {
        taken += length
        if (taken >= bytes) socket.destroy()
        return true
      },
    }
    const socket = createConnection({ path, onread }, () => socket.write('r'))
    socket.once('error', reject)
    socket.once('close', () => resolve(taken))
  })

/** Writes a session, and waits until the peer has all of it; answers how much that was. */
export const rawWrite = async (path, bytes) => {
  const socket = createConnection(path)
  await once(socket, 'connect')
  const taken = once(socket, 'data')
  socket.write('w')
  for (let sent = 0; sent < bytes; sent += CHUNK.length) {
    const length = Math.min(CHUNK.length, bytes - sent)
    await new Promise((resolve) => socket.write(CHUNK.subarray(0, length), resolve))
  }
  await taken
  socket.destroy()
  return bytes
}
