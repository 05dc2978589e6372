// Connections that speak no proper HTTP/2: they end with their client, and take nothing along.

import { connect, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startServer, type TestServer, until } from './server.ts'

let server: TestServer

beforeEach(async () => {
  server = await startServer()
})
afterEach(() => server.stop())

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
const SETTINGS = [0, 0, 0, 4, 0, 0, 0, 0, 0]

const say = (...frames: number[][]): Promise<Socket> =>
  new Promise((resolve) => {
    const socket = connect(server.socket)
    const answers: Buffer[] = []
    socket.on('error', () => undefined)
    socket.on('data', (bytes) => {
      answers.push(bytes)
      const { length } = Buffer.concat(answers)
      // Its own SETTINGS, and then whatever it has to say of the frames.
      if (length > SETTINGS.length) resolve(socket)
    })
    socket.write(Buffer.concat([PREFACE, Buffer.from([...SETTINGS, ...frames.flat()])]))
  })

describe('a connection whose client broke the protocol', () => {
  test.each([
    { fault: 'data of no stream', frame: [0, 0, 1, 0, 0, 0, 0, 0, 0, 7] },
    { fault: 'settings of a stream', frame: [0, 0, 0, 4, 0, 0, 0, 0, 5] },
    { fault: 'a frame too long', frame: [255, 255, 255, 0, 0, 0, 0, 0, 1] },
  ])('ends when the client hangs up, by itself: $fault', async ({ frame }) => {
    const socket = await say(frame)
    expect(server.api.connections.size).toBe(1)

    socket.destroy()

    await until(() => server.api.connections.size === 0)
  })
})
