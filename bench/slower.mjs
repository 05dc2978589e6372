/**
 * Takes one of vfiod's choices back, to measure what it is worth: `proto-loader` serializes device
 * state as proto-loader does, `64k-window` leaves uploads at the window that grpc-js gives them.
 */
import http2 from 'node:http2'
import { Chunk } from '../dist/base/chunk.js'
import { messageType, services } from '../dist/wire/protos.js'

const WINDOW = 65_535

const serializeByLoader = () => {
  const { serialize } = messageType('vfiod.v1.ReadSessionResponse')
  services.migration.ReadSession.responseSerialize = (message) => {
    if (!(message instanceof Chunk)) return serialize(message)
    const { buffer, headRoom, length, offset } = message
    return serialize({
      data: buffer.subarray(headRoom, headRoom + length),
      offset: String(offset),
    })
  }
}

const narrowWindow = () => {
  const { createServer } = http2
  http2.createServer = (options, ...rest) => {
    const settings = { ...options.settings, initialWindowSize: WINDOW }
    const server = createServer({ ...options, settings }, ...rest)
    server.prependListener('session', (session) => {
      session.setLocalWindowSize = () => {}
    })
    return server
  }
}

const CHOICES = { 'proto-loader': serializeByLoader, '64k-window': narrowWindow }

/** Before the server is made. */
export const takeBack = (choice) => CHOICES[choice]()
