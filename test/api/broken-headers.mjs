// A server of node:http2 whose clients break off within a header block while an answer is being
// written, with a collection after every callback: `node --expose-gc broken-headers.mjs [kept]`.
// With `kept`, sessions are kept as the daemon keeps them; without, Node 24.21 and 26.10 abort.
import { createHook } from 'node:async_hooks'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http2'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keepBehind, keepOpen } from '../../dist/front/native-session.js'

const ROUNDS = 5
const isKept = process.argv[2] === 'kept'

const frame = (type, flags, stream, payload) => {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.set([type, flags], 3)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}
/** A header field, spelled out. */
const field = (name, value) =>
  Buffer.from([0, name.length, ...Buffer.from(name), value.length, ...Buffer.from(value)])

const END_HEADERS = 4
const PING = frame(6, 0, 0, Buffer.alloc(8))
// The windows of the stream and of the connection hold all that is written, so it is written at once.
const hello = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(4, 0, 0, Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff])),
  frame(8, 0, 0, Buffer.from([0x3f, 0xff, 0, 0])),
])
const request = frame(
  1,
  END_HEADERS,
  1,
  Buffer.concat([Buffer.from([0x83, 0x86]), field(':path', '/'), field(':authority', 'x')]),
)
const halfOfTrailers = frame(
  1,
  1,
  1,
  Buffer.concat([field('a', 'v'.repeat(90)), field('b', 'w'.repeat(90))]),
)

const server = createServer()
let serving = () => {}
const collect = () => globalThis.gc()
server.on('session', (session) => {
  if (isKept) keepOpen(session)
  session.on('error', () => {})
  session.on('close', () => {
    collect()
    process.nextTick(collect)
    queueMicrotask(collect)
  })
})
server.on('stream', (stream) => {
  if (isKept) keepBehind(stream, stream.session)
  stream.on('error', () => {})
  stream.on('close', () => process.nextTick(collect))
  stream.respond()
  for (let part = 0; part < 20; part += 1) stream.write(Buffer.alloc(1 << 20))
  serving()
})
createHook({ after: collect }).enable()

const turns = async (count) => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve))
}
const folder = mkdtempSync(join(tmpdir(), 'vfiod-headers-'))
const path = join(folder, 'socket')
await new Promise((resolve) => server.listen(path, resolve))
for (let round = 0; round < ROUNDS; round += 1) {
  const socket = connect(path)
  socket.on('error', () => {})
  socket.pause()
  await new Promise((resolve) => socket.once('connect', resolve))
  const served = new Promise((resolve) => {
    serving = resolve
  })
  socket.write(Buffer.concat([hello, request]))
  await served
  await turns(5)
  socket.write(Buffer.concat([halfOfTrailers, PING]))
  await turns(5)
  socket.destroy()
  await turns(6)
}
rmSync(folder, { recursive: true })
console.log('survived')
process.exit(0)
