/** A whole migration through the domain: 64 MiB of state that goes on changing while it is sent. */

import { createHash } from 'node:crypto'
import { afterEach, expect, test } from 'vitest'
import { RECORD_SIZE } from '../../src/backends/sim/devices/profiles/records.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { createDomain, type Domain } from '../../src/domain/domain.ts'
import type { ReadEvent } from '../../src/domain/migration/migration.ts'
import { vendorMachine } from '../contract/vendor-machine.ts'
import { alice } from '../domain/people.ts'

const STATE_BYTES = 64 << 20
const PAGES = STATE_BYTES / 4096
const never = new AbortController().signal

let domain: Domain

afterEach(() => domain.releaseAll('the test ends'))

test('a device like mlx5 with 64 MiB of state arrives as it left, however it changed', async () => {
  const state = {
    bytes: BigInt(STATE_BYTES),
    initialBytes: BigInt(STATE_BYTES / 4),
    dirtyPagesPerStep: 100,
  }
  const spec = vendorMachine([
    ['mlx5-like', { state }],
    ['mlx5-like', { state: { ...state, dirtyPagesPerStep: 0 } }],
  ])
  const sim = createSim(spec, { time: 'poked' })
  domain = createDomain({ kernel: sim.kernel })
  const [source = '', target = ''] = spec.addresses
  for (const [n, name] of [source, target].entries()) {
    await domain.spaces.create(alice, name)
    await domain.spaces.addGroup(alice, name, 100 + n)
    await domain.devices.open(alice, name, name)
  }
  const { migration } = domain
  /** What the session has now: its bytes, and whether it is over. */
  const read = async (name: string, take: (bytes: Buffer) => Promise<void> | void) => {
    const request = { name, sessionId: 0n, from: undefined, connection: 'one' }
    let end: ReadEvent | undefined
    for await (const event of migration.read(alice, request, never)) {
      if (event.kind === 'end') end = event
      else await take(event.chunk.data)
    }
    return end
  }
  const digest = async (name: string): Promise<string> => {
    const hash = createHash('sha256')
    await migration.setState(alice, name, 'STOP_COPY')
    await read(name, (bytes) => void hash.update(bytes))
    return hash.digest('hex')
  }

  sim.step()
  const parts: Buffer[] = []
  const keep = (bytes: Buffer): void => void parts.push(Buffer.from(bytes))
  await migration.setState(alice, source, 'PRE_COPY')
  expect(await migration.precopyInfo(alice, source)).toEqual({
    initialBytes: BigInt((PAGES / 4) * RECORD_SIZE),
    dirtyBytes: BigInt((PAGES / 4) * 3 * RECORD_SIZE),
  })
  for (let round = 0; round < 3; round++) {
    expect(await read(source, keep)).toMatchObject({ isComplete: false })
    sim.step()
    const { initialBytes, dirtyBytes } = await migration.precopyInfo(alice, source)
    expect([initialBytes, dirtyBytes]).toEqual([0n, BigInt(100 * RECORD_SIZE)])
  }
  expect(await migration.estimate(alice, source)).toBe(BigInt(101 * RECORD_SIZE))
  await migration.setState(alice, source, 'PRE_COPY_P2P')
  await migration.setState(alice, source, 'STOP_COPY')
  expect(await read(source, keep)).toEqual({
    kind: 'end',
    sessionId: 1,
    totalBytes: BigInt((PAGES + 300 + 1) * RECORD_SIZE),
    isComplete: true,
  })

  await migration.setState(alice, target, 'RESUMING')
  const messages = async function* () {
    let offset = 0n
    for (const data of parts) {
      yield { name: target, sessionId: 0n, offset, data }
      offset += BigInt(data.length)
    }
  }
  await migration.write(alice, messages())
  await migration.setState(alice, target, 'STOP')
  await migration.setState(alice, source, 'STOP')

  expect(await digest(target)).toBe(await digest(source))
  await migration.setState(alice, target, 'RUNNING')
})
