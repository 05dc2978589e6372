// What a hostile client does with frames and connections, whatever they are to say.

import {
  ACK,
  dial,
  END_HEADERS,
  END_STREAM,
  frame,
  headers,
  message,
  PREFACE,
  rawConnection,
  TYPE,
} from './http2.mjs'

const WHO = '/vfiod.v1.OwnershipService/WhoAmI'
const OPENED = Buffer.concat([PREFACE, frame(TYPE.settings, 0, 0)])
const RESET = Buffer.from([0, 0, 0, 8])

/** So many calls, each taken back at once or left open. */
const calls = (count, { isReset }) =>
  Buffer.concat(
    Array.from({ length: count }, (_, each) => {
      const stream = each * 2 + 1
      const ended = frame(TYPE.data, END_STREAM, stream, message())
      const opened = frame(TYPE.headers, END_HEADERS, stream, headers(WHO))
      return Buffer.concat([opened, isReset ? frame(TYPE.reset, 0, stream, RESET) : ended])
    }),
  )

/** The same bytes again and again, on connections that are made anew when they are closed. */
const flood =
  (bytes, connections = 4) =>
  (socket, { attacking, forEver, times }) =>
    times(connections, () =>
      forEver(async () => {
        const connection = await rawConnection(socket)
        if (connection === undefined) return
        connection.resume()
        connection.write(OPENED)
        while (!connection.destroyed) {
          if (!connection.write(bytes))
            await new Promise((resolve) => {
              connection.once('drain', resolve)
              connection.once('close', resolve)
            })
          else await new Promise(setImmediate)
          attacking()
        }
      }),
    )

/** Connections that say so much and no more, and stay. */
const silent =
  (bytes, connections) =>
  async (socket, { attacking, pause, times }) => {
    await times(connections, async () => {
      const connection = await rawConnection(socket)
      connection?.write(bytes)
    })
    await pause(50)
    attacking()
  }

const manyOf = (one, count = 2000) => Buffer.concat(Array.from({ length: count }, () => one))

export const KINDS = {
  // Connections that leave calls behind and hang up: the daemon learns of them when they are over.
  bursts: (socket, { attacking, forEver }) => {
    const bytes = Buffer.concat([OPENED, calls(1200, { isReset: true })])
    return forEver(async () => {
      for (let each = 0; each < 100; each += 1) {
        const connection = dial(socket)
        connection.on('error', () => undefined)
        connection.once('connect', () => {
          connection.write(bytes)
          connection.destroy()
        })
      }
      await new Promise(setImmediate)
      attacking()
    })
  },
  'bursts of calls': (socket, { attacking, forEver }) => {
    const bytes = Buffer.concat([OPENED, calls(120, { isReset: false })])
    return forEver(async () => {
      const connection = await rawConnection(socket)
      connection?.end(bytes)
      attacking()
    })
  },
  'connects that hang up': (socket, { attacking, forEver, times }) =>
    times(16, () =>
      forEver(async () => {
        const connection = await rawConnection(socket)
        connection?.destroy()
        attacking()
      }),
    ),
  resets: flood(calls(900, { isReset: true })),
  pings: flood(manyOf(frame(TYPE.ping, 0, 0, Buffer.alloc(8)))),
  settings: flood(manyOf(frame(TYPE.settings, 0, 0, Buffer.from([0, 4, 0, 0, 255, 255])))),
  'acknowledged pings': flood(manyOf(frame(TYPE.ping, ACK, 0, Buffer.alloc(8)))),
  'empty data': flood(
    Buffer.concat([
      frame(TYPE.headers, END_HEADERS, 1, headers(WHO)),
      manyOf(frame(TYPE.data, 0, 1)),
    ]),
  ),
  continuations: flood(
    Buffer.concat([
      frame(TYPE.headers, 0, 1, headers(WHO)),
      manyOf(frame(TYPE.continuation, 0, 1, Buffer.alloc(64, 0x88))),
    ]),
  ),
  'large headers': flood(
    manyOf(
      frame(TYPE.headers, END_HEADERS, 1, headers(WHO, { 'x-large': 'x'.repeat(15_000) })),
      20,
    ),
  ),
  'idle connections': silent(Buffer.alloc(0), 300),
  'half a preface': silent(PREFACE.subarray(0, 10), 300),
  'half a head': silent(
    Buffer.concat([OPENED, frame(TYPE.headers, 0, 1, headers(WHO)).subarray(0, 40)]),
    300,
  ),
}
