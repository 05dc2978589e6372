// RLIMIT_MEMLOCK, as the kernel's own files tell it, against what is about to be pinned; and
// RLIMIT_NOFILE where the kernel says EMFILE.

import { describe, expect, test } from 'vitest'
import { VFIO_GROUP_GET_DEVICE_FD } from '../../src/abi/group.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { createDomain } from '../../src/domain/domain.ts'
import { memlockOf } from '../../src/kernel/own-limits.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { rlimit } from '../../src/os/limits.ts'
import { TYPE1 } from '../modes.ts'
import { EDU, failIoctl, MTTY, readySpace, type World, world } from './machine.ts'
import { alice } from './people.ts'

const PAGE = 0x1000n
const ALL = 'CapEff:\t000001ffffffffff'
const NONE = 'CapEff:\t0000000000000000'
const limits = (locked: string) =>
  `Limit                     Soft Limit           Hard Limit           Units\nMax locked memory         ${locked}  unlimited  bytes\nMax open files  10  10  files\n`

/** A simulated kernel with these files of its own process, and how often they were read. */
function limited(files: Readonly<Record<string, string>>) {
  const sim = createSim(defaultMachine, { time: 'auto' })
  const read: string[] = []
  const kernel = new Proxy(sim.kernel, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target)
      if (name !== 'readFile') return typeof value === 'function' ? value.bind(target) : value
      return (path: string) => {
        const text = files[path]
        if (text === undefined) return target.readFile(path)
        read.push(path)
        return Promise.resolve(new TextEncoder().encode(text))
      }
    },
  }) as Kernel
  const pinned = () => sim.lockedPages
  const domain = createDomain({ kernel })
  const at: World = { sim, mode: TYPE1, domain, pinned, log: [] }
  return { at, kernel, read }
}

const files = (status: string, locked: string) => ({
  '/proc/self/status': `Name:\tnode\nVmLck:\t       8 kB\n${status}\n`,
  '/proc/self/limits': limits(locked),
})

async function mapPages({ domain }: World, ...pages: readonly bigint[]) {
  await domain.memories.allocate(alice, { id: 'ram', length: 16n * PAGE, hugePage: undefined })
  const items = pages.map((count, n) => ({
    iova: 0x100000n * BigInt(n + 1),
    length: count * PAGE,
    memoryId: 'ram',
    offset: 0n,
    access: 'read-write' as const,
  }))
  const { errors } = await domain.spaces.map(alice, 'space', { items, allOrNothing: false })
  return errors
}

describe('memlockOf', () => {
  test('is the limit and what is locked, for a process without CAP_IPC_LOCK', async () => {
    const { kernel } = limited(files(NONE, '8388608'))

    expect(await memlockOf(kernel)).toEqual({ limit: 8388608n, locked: 8192n })
  })

  test.each([
    ['with CAP_IPC_LOCK', files(ALL, '8388608')],
    ['without a limit', files(NONE, 'unlimited')],
  ])('is none for a process %s', async (_who, given) => {
    expect(await memlockOf(limited(given).kernel)).toBe('none')
  })

  test('is undefined where the kernel does not tell', async () => {
    expect(await memlockOf(limited({}).kernel)).toBeUndefined()
  })
})

describe('a mapping over RLIMIT_MEMLOCK', () => {
  test('is refused before the kernel is asked, with limit, current and needed', async () => {
    const { at } = limited(files(NONE, '16384'))
    await readySpace(at, alice)
    let asked = 0
    at.sim.fault = (call) => {
      if (call.name === 'ioctl') asked += 1
      return undefined
    }

    const [fits, exceeds] = await mapPages(at, 2n, 3n)

    expect(fits).toBeUndefined()
    expect(exceeds).toMatchObject({
      reason: 'MEMLOCK_EXCEEDED',
      details: { quota: { max: 16384n, current: 8192n, needed: 12288n } },
    })
    expect(exceeds?.details).not.toHaveProperty('errno')
    expect(asked).toBe(1)
    expect(at.domain.quotas.usage(alice).find(({ name }) => name === 'mappings')?.current).toBe(1n)
  })

  test('is taken where only mediated devices would use it: nothing is pinned', async () => {
    const { at } = limited(files(NONE, '4096'))
    const { group } = await at.domain.inventory.device(MTTY)
    await at.domain.spaces.create(alice, 'space')
    await at.domain.spaces.addGroup(alice, 'space', group)

    expect(await mapPages(at, 8n)).toEqual([undefined])
  })

  test('is not looked for again by a daemon that has CAP_IPC_LOCK', async () => {
    const { at, read } = limited(files(ALL, '4096'))
    await readySpace(at, alice)

    expect(await mapPages(at, 4n, 4n, 4n)).toEqual([undefined, undefined, undefined])
    expect(read).toEqual(['/proc/self/status'])
  })
})

describe('EMFILE', () => {
  test('is explained by RLIMIT_NOFILE of the daemon', async () => {
    const at = world()
    await readySpace(at, alice)
    failIoctl(at.sim, VFIO_GROUP_GET_DEVICE_FD, ERRNO.EMFILE)
    const limit = rlimit('nofile')
    const max = typeof limit === 'number' ? 0n : limit.current

    const refused = at.domain.devices.open(alice, 'space', EDU)

    await expect(refused).rejects.toThrow(`has ${max} open files, which is its RLIMIT_NOFILE`)
    await expect(refused).rejects.toMatchObject({
      reason: 'LIMIT_REACHED',
      details: { errno: 'EMFILE', quota: { max, current: max, needed: 1n } },
    })
  })
})
