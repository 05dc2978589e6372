/**
 * Fronts that say anything to the owner, by a seed: most of it what a front may say, so that it goes deep, and
 * now and then a lie. The owner goes on, a lie ends its front and is logged, a client of another account is
 * served, and the books of each account are exact. `npm run soak:front-fuzz` does so for ten minutes.
 */
import { Socket } from 'node:net'
import { expect, test } from 'vitest'
import type { StartFront } from '../../src/api/transport/running-front.ts'
import { startInside } from '../../src/front/inside.ts'
import { FROM_FRONT, FROM_OWNER } from '../../src/link/frames.ts'
import { LINK_MEMORY, SLOT_BYTES } from '../../src/link/slots.ts'
import { channelsOf, openChannels } from '../../src/os/channels.ts'
import { connectSeqpacket } from '../../src/os/fd-passing.ts'
import { sys } from '../../src/os/libc.ts'
import { METHODS } from '../../src/wire/methods.ts'
import { ClientProcess } from '../api/client-process.ts'
import { HostileFront } from '../api/hostile-front.ts'
import { EVERYTHING, startServer, type TestServer, until } from '../api/server.ts'
import { openFds } from '../os/fds.ts'
import { canBeOthers } from '../other-users.ts'
import { seed } from './daemon.ts'
import { Random } from './random.mjs'

/** Whole runs of a front; by time where VFIOD_MINUTES says so. */
const ROUNDS = 12
const MINUTES = Number(process.env.VFIOD_MINUTES ?? 0)

const VICTIM = 20_006
const ACTIONS = 120
const CONNECTIONS = 3

const KINDS = Object.values(FROM_FRONT)
const EMPTY = Buffer.alloc(0)

interface Round {
  readonly front: HostileFront
  readonly memory: Buffer
  /** Those that it was given, the one of the fd channel last. */
  readonly connections: readonly number[]
  readonly random: Random
  call: number
}

const u16 = (value: number): Buffer => Buffer.from([value & 0xff, value >> 8])

/** Frames as an honest front sends them, with contents that no client would. */
const plausible = (round: Round): void => {
  const { front, random, connections } = round
  const connection = random.pick(connections.slice(0, CONNECTIONS))
  const last = Math.max(1, round.call - random.below(4))
  switch (random.below(9)) {
    case 0:
    case 1:
    case 2: {
      round.call += 1
      const index = random.below(METHODS.length)
      front.say(FROM_FRONT.open, connection, round.call, u16(index))
      if (METHODS[index]?.isClientStream !== true)
        front.say(FROM_FRONT.request, connection, round.call, random.bytes(random.below(60)))
      return
    }
    case 3:
      round.call += 1
      front.say(FROM_FRONT.openUnknown, connection, round.call, random.bytes(40))
      return
    case 4:
      front.say(FROM_FRONT.cancel, connection, last)
      return
    case 5:
      front.say(FROM_FRONT.end, connection, last)
      return
    case 6: {
      const record = { method: random.bytes(20).toString('latin1'), reason: 'X', refusal: 7 }
      front.say(FROM_FRONT.refused, connection, 0, Buffer.from(JSON.stringify(record)))
      return
    }
    case 7: {
      if (random.below(12) > 0) return
      round.memory.set(random.bytes(64), random.below(LINK_MEMORY - 64))
      const place = Buffer.alloc(5)
      place.writeUInt8(random.below(8))
      place.writeUInt32LE(random.below(SLOT_BYTES), 1)
      front.say(FROM_FRONT.messageAt, connection, last, place)
      return
    }
    default:
      front.say(FROM_FRONT.pong, 0, 0)
  }
}

/** What an honest front never does. */
const lie = (round: Round, fd: number): void => {
  const { front, random, connections } = round
  const { outgoing, uplink, packets } = front.channels
  const connection = random.pick([...connections, random.below(1000), 0])
  switch (random.below(6)) {
    case 0:
      outgoing.write(random.bytes(1 + random.below(200)))
      return
    case 1:
      front.say(random.pick(KINDS), connection, random.below(8), random.bytes(random.below(40)))
      return
    case 2:
      front.say(random.below(256), connection, random.below(8), EMPTY)
      return
    case 3:
      uplink.send(random.bytes(1 + random.below(40)), random.below(2) === 0 ? [fd] : [])
      return
    case 4:
      packets.send(random.bytes(8), [fd])
      return
    default: {
      const ticket = Buffer.concat([u16(random.below(300)), random.bytes(random.below(300))])
      front.say(FROM_FRONT.ticket, connections.at(-1) ?? 0, random.below(4), ticket)
    }
  }
}

/** Answers that the owner asks for, rightly or not. */
const answerWants = ({ front, random }: Round, fd: number): void => {
  for (const { kind, connection, call } of front.heard.splice(0)) {
    if (kind !== FROM_OWNER.want) continue
    const names = Buffer.from(new Uint32Array([connection, call]).buffer)
    const kinds = Buffer.from([random.below(4)])
    front.channels.uplink.send(Buffer.concat([names, kinds]), random.below(2) === 0 ? [fd] : [])
  }
}

test('fronts that say anything end, at most, themselves', {
  timeout: 120_000 + MINUTES * 80_000,
}, async () => {
  const random = new Random(seed)
  let account = 'nothing yet'
  let hostile: HostileFront | undefined
  let memory = EMPTY
  let isHostile = false
  const startFront: StartFront = (onExit) => {
    if (!isHostile) return startInside(onExit)
    isHostile = false
    const { owner, other } = openChannels()
    const front = new HostileFront(other)
    hostile = front
    memory = Buffer.alloc(LINK_MEMORY)
    return {
      ...channelsOf(owner),
      memory,
      kill: () => {
        front.end()
        onExit('it was killed')
      },
    }
  }
  const server: TestServer = await startServer(
    {},
    {
      startFront,
      grantOf: (identity) =>
        'uid' in identity && identity.uid === VICTIM
          ? { ...EVERYTHING, role: 'operate', account: 'victim' }
          : { ...EVERYTHING, account },
    },
  )
  const victim = canBeOthers
    ? new ClientProcess(server.socket, { uid: VICTIM, gid: VICTIM })
    : undefined
  await victim?.call('addressSpace', 'createSpace', { spaceId: 'victim' })
  const file = sys.openSync('/proc/self/status', 0)
  const before = openFds()
  const over = performance.now() + MINUTES * 60_000
  let rounds = 0
  let actions = 0
  while (rounds < ROUNDS || performance.now() < over) {
    rounds += 1
    account = `front ${rounds}`
    isHostile = true
    hostile = undefined
    const sockets = Array.from({ length: CONNECTIONS }, () => new Socket().connect(server.socket))
    for (const socket of sockets) socket.on('error', () => undefined)
    await until(() => hostile !== undefined)
    const front = hostile as unknown as HostileFront
    const channel = connectSeqpacket(server.fdSocket)
    if (typeof channel === 'number') throw new Error('no fd channel')
    const given = []
    while (given.length < CONNECTIONS + 1) given.push(await front.given())
    const connections = given.map(({ connection }) => connection).sort((a, b) => a - b)
    const round: Round = { front, memory, connections, random, call: 0 }
    for (let n = 0; n < ACTIONS && !front.isKilled; n += 1) {
      actions += 1
      if (random.below(60) === 0) lie(round, file)
      else plausible(round)
      answerWants(round, file)
      if (random.below(8) === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    front.end()
    for (const socket of sockets) socket.destroy()
    channel.close()
    for (const { fd } of given) sys.closeSync(fd)

    const mine = () =>
      server.domain.quotas
        .usage({ account, grant: EVERYTHING })
        .filter(({ name }) => name === 'connections')
        .map(({ current }) => current)
    await until(() => mine()[0] === 0n)
    const answer = await victim?.call('addressSpace', 'listSpaces', {})
    if (answer !== undefined)
      expect(answer.result.spaces, `VFIOD_SEED=${seed}`).toMatchObject([{ spaceId: 'victim' }])
  }
  const ended = server.lines.filter(({ message }) => message === 'front ended')
  const why: Record<string, number> = {}
  for (const { fields } of ended) {
    const reason = String((fields as { why?: string }).why).replace(/\d+/g, 'N')
    why[reason] = (why[reason] ?? 0) + 1
  }
  console.log(`front-fuzz ${JSON.stringify({ seed, rounds, actions, why })}`)
  expect(ended.length).toBe(rounds)
  const mistakes = server.lines.filter(({ level }) => level === 'error')
  expect(mistakes, `VFIOD_SEED=${seed}`).toEqual([])
  await server.domain.releaseAll('the test looks at the books')
  await until(() => openFds() <= before + 8)
  sys.closeSync(file)
  await victim?.kill()
  await server.stop()
})
