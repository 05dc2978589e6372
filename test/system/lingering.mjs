// A client that leaves sockets behind whose last close sleeps for ten minutes, unless its process ends:
// TCP sockets with SO_LINGER and bytes that nobody reads. It connects, sends them, and is gone at once.
//   node lingering.mjs SOCKET PORT COUNT [CONNECTIONS]
// At the port somebody listens who reads nothing and outlives it.
import { once } from 'node:events'
import { connect } from 'node:net'
import { bind, call } from '../../dist/os/async-call.js'
import { connectUnix, SOCK_SEQPACKET, SOCK_STREAM, sendMessage } from '../../dist/os/unix-socket.js'

const [socket, port, count = '1', connections = '1'] = process.argv.slice(2)
const setsockopt = bind('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'unsigned int'])
const SOL_SOCKET = 1
const SO_LINGER = 13
const SECONDS = 600

const fds = []
for (let n = 0; n < Number(count); n += 1) {
  const tcp = connect(Number(port), '127.0.0.1')
  await once(tcp, 'connect')
  // Until neither end takes more.
  while (tcp.write(Buffer.alloc(1 << 20)));
  const linger = new Uint8Array(new Int32Array([1, SECONDS]).buffer)
  if (call(setsockopt, tcp._handle.fd, SOL_SOCKET, SO_LINGER, linger, linger.length) < 0)
    throw new Error('no SO_LINGER')
  fds.push(tcp._handle.fd)
}
for (let n = 0; n < Number(connections); n += 1) {
  const type = socket.endsWith('fds.sock') ? SOCK_SEQPACKET : SOCK_STREAM
  const fd = connectUnix(type, socket)
  if (fd < 0) throw new Error(`cannot connect: ${fd}`)
  const sent = sendMessage(fd, Buffer.from('x'), fds)
  if (sent < 0) throw new Error(`cannot send: ${sent}`)
}
// A process that is killed closes without lingering: what it sent is the last from here on.
process.kill(process.pid, 'SIGKILL')
