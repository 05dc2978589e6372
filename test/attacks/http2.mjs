// HTTP/2 as a hostile client speaks it: frames by hand, and streams on sessions that read nothing.

import { readFileSync } from 'node:fs'
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'
import { credentials } from '@grpc/grpc-js'
import { connect } from '../../dist/client/client.js'

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

export const TYPE = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
}
export const END_STREAM = 1
export const END_HEADERS = 4
export const ACK = 1

export const frame = (type, flags, stream, payload = Buffer.alloc(0)) => {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** A header that is neither indexed nor packed. */
const literal = (name, value) => {
  const long = Buffer.from(value)
  const size = long.length < 127 ? [long.length] : [127, ...varint(long.length - 127)]
  return Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from(size), long])
}

const varint = (value) => {
  const bytes = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  return [...bytes, rest]
}

export const headers = (path, more = {}) =>
  Buffer.concat(
    Object.entries({
      ':method': 'POST',
      ':scheme': 'http',
      ':path': path,
      ':authority': 'localhost',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...more,
    }).map(([name, value]) => literal(name, value)),
  )

/** A gRPC message: its length may be more than what comes. */
export const message = (
  body = Buffer.alloc(0),
  { length = body.length, isPacked = false } = {},
) => {
  const head = Buffer.alloc(5)
  head.writeUInt8(isPacked ? 1 : 0)
  head.writeUInt32BE(length, 1)
  return Buffer.concat([head, body])
}

/**
 * Where to connect, as attacks are told: the path of a socket; `tcp:PORT`, where nothing is known of
 * TLS; or `tls:PORT:FOLDER` with ca.pem, cert.pem and key.pem.
 */
const partsOf = (target) => {
  const [kind, port, folder] = target.split(':')
  if (kind === 'tcp') return { port: Number(port) }
  if (kind !== 'tls') return { path: target }
  const read = (name) => readFileSync(`${folder}/${name}.pem`)
  return { port: Number(port), ca: read('ca'), cert: read('cert'), key: read('key') }
}

const options = { host: '127.0.0.1', servername: 'localhost', ALPNProtocols: ['h2'] }
const dialling = (target) => {
  const parts = partsOf(target)
  return 'ca' in parts
    ? { event: 'secureConnect', dial: () => tls.connect({ ...options, ...parts }) }
    : { event: 'connect', dial: () => net.connect(parts) }
}
const dials = new Map()
const dialler = (target) => {
  if (!dials.has(target)) dials.set(target, dialling(target))
  return dials.get(target)
}

export const clientAt = (target) => {
  const { path, port, ca, cert, key } = partsOf(target)
  if (path !== undefined) return connect({ socket: path })
  return connect({
    address: `localhost:${port}`,
    credentials: credentials.createSsl(ca, key, cert),
  })
}

/** A handshake that shows nothing. */
export const withoutCertificate = (target) =>
  tls.connect({ ...options, ...partsOf(target), rejectUnauthorized: false })

export const dial = (target) => dialler(target).dial()

/** A connection that is written to and never read from; undefined where it is refused. */
export const rawConnection = (target) =>
  new Promise((resolve) => {
    const { event } = dialler(target)
    const socket = dial(target)
    socket.once(event, () => resolve(socket))
    socket.once('close', () => resolve(undefined))
    socket.on('error', () => resolve(undefined))
  })

/** A session whose streams read nothing of their answers. */
export const session = (target, settings = {}) =>
  new Promise((resolve) => {
    const made = http2.connect('http://localhost', {
      createConnection: () => dial(target),
      settings,
      maxSessionMemory: 4000,
      peerMaxConcurrentStreams: 1000,
    })
    made.once('connect', () => resolve(made))
    made.on('error', () => resolve(undefined))
  })

/** A stream of a session that may have ended. */
export const stream = (on, method, more = {}) => {
  if (on === undefined || on.destroyed || on.closed) return undefined
  const made = on.request({
    ':method': 'POST',
    ':path': `/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...more,
  })
  made.on('error', () => undefined)
  return made
}

export const ended = (made) =>
  new Promise((resolve) =>
    made === undefined || made.closed ? resolve() : made.once('close', resolve),
  )
