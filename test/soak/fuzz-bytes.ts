/** Bytes and messages to try a daemon with: random, and mutated from what a real client says. */

import { connect as connectSocket, createServer, type Socket } from 'node:net'
import type { MethodDefinition } from '@grpc/proto-loader'
import { packageDefinition } from '../../src/wire/protos.ts'
import type { Random } from './random.mjs'

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

/** A frame of HTTP/2 whose header says what it likes about the rest (RFC 9113, 4.1). */
const randomFrame = (random: Random): Buffer => {
  const payload = random.bytes(random.below(200))
  const head = Buffer.alloc(9)
  // Mostly the length that it has, and a type that there is.
  head.writeUIntBE(random.below(4) > 0 ? payload.length : random.below(1 << 24), 0, 3)
  head[3] = random.below(8) > 0 ? random.below(10) : random.below(256)
  head[4] = random.below(256)
  head.writeUInt32BE(random.pick([0, 1, 3, 5, random.below(2 ** 32)]), 5)
  return Buffer.concat([head, payload])
}

/** A little of it changed, left out, repeated or put in. */
export const mutated = (random: Random, bytes: Buffer): Buffer => {
  let out = Buffer.from(bytes)
  for (let times = 1 + random.below(6); times > 0; times -= 1) {
    const at = random.below(out.length + 1)
    const until = Math.min(out.length, at + random.below(32))
    const [head, part, tail] = [out.subarray(0, at), out.subarray(at, until), out.subarray(until)]
    const changed = Buffer.from(part.map((byte) => byte ^ (1 << random.below(8))))
    const middle = random.pick([[changed], [], [part, part], [random.bytes(8), part]])
    out = Buffer.concat([head, ...middle, tail])
  }
  return out
}

/** What to write to a socket that expects HTTP/2. */
export const http2Junk = (random: Random, recorded: Buffer): Buffer => {
  const frames = () => Array.from({ length: 1 + random.below(20) }, () => randomFrame(random))
  // An empty SETTINGS frame, which a server waits for first.
  const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])
  const kinds = [
    () => random.bytes(random.below(2000)),
    () => Buffer.concat([PREFACE, random.bytes(random.below(500))]),
    () => Buffer.concat([PREFACE, settings, ...frames()]),
    () => recorded.subarray(0, random.below(recorded.length)),
    () => Buffer.concat([recorded, ...frames()]),
    () => mutated(random, recorded),
    () => Buffer.concat([PREFACE, mutated(random, recorded.subarray(PREFACE.length))]),
  ]
  return random.pick(kinds)()
}

/** What a client sends to a server at `path` while it does `work` through `via`. */
export async function record(
  path: string,
  via: string,
  work: () => Promise<unknown>,
): Promise<Buffer> {
  const parts: Buffer[] = []
  const sockets: Socket[] = []
  const server = createServer((near) => {
    const far = connectSocket(path)
    sockets.push(near, far)
    near.on('data', (bytes) => parts.push(bytes))
    near.pipe(far).pipe(near)
  })
  await new Promise<void>((resolve) => server.listen(via, resolve))
  await work()
  for (const socket of sockets) socket.destroy()
  await new Promise((resolve) => server.close(resolve))
  return Buffer.concat(parts)
}

interface Field {
  readonly name: string
  readonly label: string
  readonly type: string
  readonly typeName: string
}

type MessageType = MethodDefinition<object, object>['requestType']

const NUMBERS = ['0', '1', '4095', '4096', '65536', `${2n ** 63n}`, `${2n ** 64n - 1n}`]

const randomValue = (random: Random, field: Field, names: readonly string[]): unknown => {
  switch (field.type) {
    case 'TYPE_STRING':
      return random.below(3) > 0
        ? random.pick(names)
        : random.bytes(random.below(100)).toString('latin1')
    case 'TYPE_UINT64':
      return random.pick(NUMBERS)
    case 'TYPE_UINT32':
      return random.pick([0, 1, 2, 5, 4096, 2 ** 32 - 1, random.below(2 ** 32)])
    case 'TYPE_ENUM':
      return random.below(8)
    case 'TYPE_BOOL':
      return random.below(2) === 1
    case 'TYPE_BYTES':
      return random.bytes(random.below(64))
    case 'TYPE_MESSAGE': {
      const name = field.typeName.replace(/^\./, '')
      const type = packageDefinition[name.includes('.') ? name : `vfiod.v1.${name}`]
      return randomMessage(random, type as MessageType, names)
    }
    default:
      return undefined
  }
}

/** A message of that type in which any field may have any value; texts are often one of `names`. */
export function randomMessage(random: Random, type: MessageType, names: readonly string[]): object {
  const { field: fields } = type.type as { readonly field: readonly Field[] }
  const given = fields.filter(() => random.below(4) > 0)
  return Object.fromEntries(
    given.map((field) => {
      if (field.label !== 'LABEL_REPEATED') return [field.name, randomValue(random, field, names)]
      const values = Array.from({ length: random.below(4) }, () =>
        randomValue(random, field, names),
      )
      return [field.name, values]
    }),
  )
}
