/**
 * The raw peer: a Unix socket in Node without gRPC or HTTP/2. The first byte of a connection says
 * what is wanted: `p` sends every packet back, `r` streams the bytes of a session, `w` takes as
 * many and then sends one byte.
 *
 *   node raw-server.mjs <socket> <bytes of a session>
 */
import { createServer } from 'node:net'

const [path, bytes] = process.argv.slice(2)
const sessionBytes = Number(bytes)
const CHUNK = Buffer.alloc(1 << 20, 0x5a)

const echo = (socket, rest) => {
  if (rest.length > 0) socket.write(rest)
  socket.on('data', (data) => socket.write(data))
}

const stream = (socket, sent = 0) => {
  if (sent >= sessionBytes) return socket.end()
  const length = Math.min(CHUNK.length, sessionBytes - sent)
  return socket.write(CHUNK.subarray(0, length), () => stream(socket, sent + length))
}

const sink = (socket, rest) => {
  let taken = 0
  const take = (data) => {
    taken += data.length
    if (taken >= sessionBytes) socket.end('.')
  }
  take(rest)
  socket.on('data', take)
}

const KINDS = { p: echo, r: (socket) => stream(socket), w: sink }

createServer((socket) => {
  socket.on('error', () => {})
  socket.once('data', (data) => KINDS[String.fromCharCode(data[0])]?.(socket, data.subarray(1)))
}).listen(path, () => console.log('ready'))
