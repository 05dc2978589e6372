/**
 * A kernel under the domain that counts the calls of the port, fails the one that a test names, and
 * knows which fds are open.
 */

import { expect } from 'vitest'
import { VFIO_GROUP_GET_DEVICE_FD } from '../../src/abi/group.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import type { World } from './machine.ts'

export class WatchedKernel {
  /** Calls since the last `arm`. */
  calls = 0
  /** What each of them was. */
  readonly names: string[] = []
  /** What was opened. */
  readonly paths: string[] = []
  readonly openFds = new Set<number>()
  /** What is mapped of devices. */
  readonly segments = new Set<object>()
  #failing: ((call: number) => number | undefined) | undefined

  /** Count from zero, and fail the calls for which this answers an errno. */
  arm(failing?: (call: number) => number | undefined): void {
    this.calls = 0
    this.names.length = 0
    this.paths.length = 0
    this.#failing = failing
  }

  readonly over = (kernel: Kernel): Kernel =>
    new Proxy(kernel, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => this.#call(target, String(name), args)
      },
    })

  async #call(kernel: Kernel, name: string, args: unknown[]): Promise<unknown> {
    const errno = this.#failing?.(this.calls)
    this.calls += 1
    this.names.push(name)
    if (name === 'open') this.paths.push(args[0] as string)
    // An fd is closed whatever close(2) says, and so is what is unmapped.
    const ends = name === 'close' || name === 'munmap'
    if (name === 'close') this.openFds.delete(args[0] as number)
    if (name === 'munmap') this.segments.delete(args[0] as object)
    if (errno !== undefined && !ends) return -errno
    const method = kernel[name as keyof Kernel] as (...args: unknown[]) => Promise<unknown>
    const answer = await method.apply(kernel, args)
    const makesFd = name === 'open' || args[1] === VFIO_GROUP_GET_DEVICE_FD.number
    if (makesFd && typeof answer === 'number' && answer >= 0) this.openFds.add(answer)
    if (name === 'mmap' && typeof answer === 'object' && answer) this.segments.add(answer)
    return ends && errno !== undefined ? -errno : answer
  }
}

/** The books are right: what is charged is what is listed, and what the kernel has. */
export function requireRightBooks(at: World): void {
  const { domain, mode } = at
  const { state, quotas } = domain
  const usage = (books: Iterable<[string, object]>) =>
    [...books].sort(([a], [b]) => (a < b ? -1 : 1))
  const { usage: counted } = state.snapshot() as { usage: [string, object][] }
  expect(usage(state.recount())).toEqual(counted)
  // Nothing is held by a call that has ended.
  for (const { name, current } of quotas.totalUsage()) {
    const recorded = state.totalUsage().of(name)
    // A mapping that could not be updated keeps the former window of its memory, which counts as well.
    if (name === 'memory_bytes' && state.memories().length > 0) {
      expect(current).toBeGreaterThanOrEqual(recorded)
      continue
    }
    expect([name, current]).toEqual([name, recorded])
  }
  // A space that only mediated devices use has nothing pinned, and an iommufd pins for open devices.
  const pinned = domain.spaces
    .list()
    .filter(({ id, members }) =>
      members.some(({ group, pins, isAttached }) => {
        const isOpen = state.devicesOf(id).some((device) => device.group === group)
        return pins && isAttached && (mode.vfioContainer === 'type1' || isOpen)
      }),
    )
    .reduce((sum, { mappings }) => sum + (mappings.price.locked_bytes ?? 0n), 0n)
  expect(at.pinned() * 0x1000n).toBe(pinned)
}

/** The books are right before and after everything is released, and nothing is left open or mapped. */
export async function requireCleanEnd(at: World, watched: WatchedKernel): Promise<void> {
  at.sim.faults.clear()
  at.sim.fault = undefined
  requireRightBooks(at)
  await at.domain.releaseAll('the test is over')
  requireRightBooks(at)
  expect([...watched.openFds]).toEqual([])
  expect([...watched.segments]).toEqual([])
}
