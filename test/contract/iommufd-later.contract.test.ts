/**
 * iommufd of 6.13 and 6.14 (map file, change process), and who is charged for what: rules that the
 * kernel of the test machine does not have, or that need several processes with limits.
 */

import { afterEach, expect, test } from 'vitest'
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_OPTION_RLIMIT_MODE,
  iommu_ioas_alloc,
} from '../../src/abi/iommufd.ts'
import {
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_MAP_FILE,
  iommu_ioas_change_process,
  iommu_ioas_map_file,
} from '../../src/abi/iommufd-later.ts'
import { createSim, type SimProcess } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { sys } from '../../src/os/libc.ts'
import { describeModelled } from './backends.ts'
import { EduDriver } from './edu-driver.ts'
import { boundAndAttached, FIXED, Iommufd, openIommufd, PAGE, RW } from './iommufd-calls.ts'
import { Machine } from './machine.ts'

const describe = describeModelled('Linux 6.12 has no such requests, and root no such limits')

const EDU = '0000:00:04.0'
const BASE = 0x100_0000n

const machines: Machine[] = []
afterEach(async () => {
  for (const machine of machines.splice(0)) await machine.cleanUp()
})

/** A machine and an iommufd of the first process, with an ioas that the edu is attached to. */
const bench = async (kernelVersion = '6.14', memlockBytes: bigint | null = null) => {
  const sim = createSim(
    { ...defaultMachine, mdevs: [], kernelVersion, memlockBytes },
    { time: 'poked' },
  )
  const machine = new Machine('sim', sim.kernel, async () => void sim.step())
  machines.push(machine)
  await machine.edus()
  const iommufd = await openIommufd(machine)
  return { sim, machine, iommufd }
}

/** The same iommufd as another process has it. */
const handed = (from: SimProcess, to: SimProcess, { fd }: Iommufd): Iommufd => {
  const machine = new Machine('sim', to.kernel, async () => {})
  machines.push(machine)
  return new Iommufd(machine, machine.track(to.receive(from, fd)))
}

const changeProcess = async (iommufd: Iommufd, reserved = 0) =>
  (
    await iommufd.ask(IOMMU_IOAS_CHANGE_PROCESS, iommu_ioas_change_process, {
      __reserved: reserved,
    })
  ).answer

const mapFile = (iommufd: Iommufd, values: object) =>
  iommufd.ask(IOMMU_IOAS_MAP_FILE, iommu_ioas_map_file, {
    flags: FIXED,
    iova: BASE,
    length: PAGE,
    ...values,
  })

describe('IOMMU_IOAS_MAP_FILE', () => {
  test('came with 6.13: ENOTTY before', async () => {
    const { iommufd } = await bench('6.12')

    expect((await mapFile(iommufd, {})).answer).toBe('ENOTTY')
  })

  test('maps a file that no address leads to any more', async () => {
    const { machine, iommufd } = await bench('6.13')
    const ioas = await iommufd.newIoas()
    const { device } = await boundAndAttached(machine, iommufd, EDU, ioas)
    const { fd, segment } = await machine.memory(4 * 4096)
    segment.bytes.fill(0x5a, 4096, 4096 + 64)

    const file = { ioas_id: ioas, fd, start: PAGE, length: 2n * PAGE }
    expect((await mapFile(iommufd, file)).answer).toBe(0)
    const driver = await new EduDriver(machine, device).enable()
    await driver.fetch(BASE, 64)
    await driver.store(BASE + PAGE, 64)

    expect(segment.bytes.subarray(8192, 8192 + 64)).toEqual(new Uint8Array(64).fill(0x5a))
    expect(await iommufd.unmapAll(ioas)).toEqual({ answer: 0, length: 2n * PAGE })
  })

  test('chooses an iova, shares by COPY and checks as IOMMU_IOAS_MAP does', async () => {
    const { machine, iommufd } = await bench('6.13')
    const ioas = await iommufd.newIoas()
    const { fd } = await machine.memory(4096)
    const map = async (values: object) =>
      (await mapFile(iommufd, { ioas_id: ioas, fd, ...values })).answer

    expect(await mapFile(iommufd, { ioas_id: ioas, fd, flags: RW })).toMatchObject({ iova: PAGE })
    const copy = { src_ioas_id: ioas, dst_ioas_id: ioas, src_iova: PAGE, length: PAGE }
    expect((await iommufd.copy(copy)).answer).toBe(0)
    expect(await map({ flags: 8 | RW })).toBe('EOPNOTSUPP')
    expect(await map({ flags: 1 })).toBe('EINVAL')
    expect(await map({ ioas_id: 0 })).toBe('ENOENT')
    expect(await map({ length: 0n })).toBe('EINVAL')
    expect(await map({ start: -PAGE })).toBe('EOVERFLOW')
    expect(await map({})).toBe(0)
    expect(await map({})).toBe('EEXIST')
  })

  test('needs an open file: EBADF; and memory once it is pinned: EINVAL', async () => {
    const { machine, iommufd } = await bench('6.13')
    const ioas = await iommufd.newIoas()
    const { fd } = await machine.memory(4096)
    expect((await mapFile(iommufd, { ioas_id: ioas, fd: -1 })).answer).toBe('EBADF')
    expect((await mapFile(iommufd, { ioas_id: ioas, fd: 1_000_000 })).answer).toBe('EBADF')
    expect((await mapFile(iommufd, { ioas_id: ioas, fd, length: 2n * PAGE })).answer).toBe(0)
    await iommufd.unmapAll(ioas)
    await boundAndAttached(machine, iommufd, EDU, ioas)

    expect((await mapFile(iommufd, { ioas_id: ioas, fd, length: 2n * PAGE })).answer).toBe('EINVAL')
    const nothing = sys.openSync('/dev/null', 2)
    expect((await mapFile(iommufd, { ioas_id: ioas, fd: nothing })).answer).toBe('EINVAL')
    sys.closeSync(nothing)
    expect((await mapFile(iommufd, { ioas_id: ioas, fd })).answer).toBe(0)
  })
})

describe('IOMMU_IOAS_CHANGE_PROCESS (change_process)', () => {
  const LIMIT = 64n * PAGE

  /** Sixteen pages of a file, mapped for a device by the first process. */
  const mappedByFile = async (version = '6.14') => {
    const made = await bench(version, LIMIT)
    const { machine, iommufd } = made
    expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 1n)).toBe(0)
    const ioas = await iommufd.newIoas()
    await boundAndAttached(machine, iommufd, EDU, ioas)
    const { fd } = await machine.memory(16 * 4096)
    expect((await mapFile(iommufd, { ioas_id: ioas, fd, length: 16n * PAGE })).answer).toBe(0)
    return { ...made, ioas }
  }

  test('came with 6.14: ENOTTY before', async () => {
    const { iommufd } = await mappedByFile('6.13')

    expect(await changeProcess(iommufd)).toBe('ENOTTY')
  })

  test('moves the pinned pages to the caller', async () => {
    const { sim, iommufd } = await mappedByFile()
    const heir = sim.spawn()
    expect([sim.lockedPages, sim.pinnedPages]).toEqual([16n, 16n])

    expect(await changeProcess(handed(sim, heir, iommufd))).toBe(0)

    expect([sim.lockedPages, sim.pinnedPages]).toEqual([0n, 0n])
    expect([heir.lockedPages, heir.pinnedPages]).toEqual([16n, 16n])
  })

  test('changes nothing past the limit of the caller: ENOMEM', async () => {
    const { sim, iommufd } = await mappedByFile()
    const poor = sim.spawn({ memlockBytes: 15n * PAGE })

    expect(await changeProcess(handed(sim, poor, iommufd))).toBe('ENOMEM')

    expect([sim.lockedPages, poor.lockedPages]).toEqual([16n, 0n])
  })

  test('refuses where anything was mapped by address: EINVAL; reserved bits: EOPNOTSUPP', async () => {
    const { machine, iommufd, ioas } = await mappedByFile()
    const { segment } = await machine.memory(4096)
    await iommufd.mapAt(ioas, { iova: 2n * BASE, vaddr: segment.address, length: PAGE })

    expect(await changeProcess(iommufd)).toBe('EINVAL')
    expect(await changeProcess(iommufd, 1)).toBe('EOPNOTSUPP')
    await iommufd.unmap(ioas, 2n * BASE, PAGE)
    expect(await changeProcess(iommufd)).toBe(0)
  })
})

describe('a pinned page', () => {
  test('is charged once per map request, however often it is copied', async () => {
    const { sim, machine, iommufd } = await bench('6.12', 64n * PAGE)
    const ioas = await iommufd.newIoas()
    await boundAndAttached(machine, iommufd, EDU, ioas)
    const { segment } = await machine.memory(8 * 4096)
    const at = { iova: BASE, vaddr: segment.address, length: 8n * PAGE }
    await iommufd.mapAt(ioas, at)
    const copy = { src_ioas_id: ioas, dst_ioas_id: ioas, src_iova: BASE, length: 4n * PAGE }
    await iommufd.copy(copy)
    expect(sim.pinnedPages).toBe(8n)

    await iommufd.unmap(ioas, BASE, 8n * PAGE)
    expect(sim.pinnedPages).toBe(4n)
    await iommufd.mapAt(ioas, at)
    expect(sim.pinnedPages).toBe(12n)
    await iommufd.unmapAll(ioas)
    expect(sim.pinnedPages).toBe(0n)
  })

  test('counts for all processes of the user: ENOMEM', async () => {
    const { sim, machine, iommufd } = await bench('6.12', 16n * PAGE)
    const ioas = await iommufd.newIoas()
    await boundAndAttached(machine, iommufd, EDU, ioas)
    const { segment } = await machine.memory(16 * 4096)
    const at = { iova: BASE, vaddr: segment.address as bigint, length: 12n * PAGE }
    expect(await iommufd.mapAt(ioas, at)).toBe(0)
    expect(sim.lockedPages).toBe(0n)
    const other = handed(sim, sim.spawn(), iommufd)

    const more = { ...at, iova: 2n * BASE, length: 5n * PAGE }
    expect(await other.mapAt(ioas, more)).toBe('ENOMEM')
    expect(await other.mapAt(ioas, { ...more, length: 4n * PAGE })).toBe(0)
  })

  test('counts for each process alone with RLIMIT_MODE 1, and for none with CAP_IPC_LOCK', async () => {
    const { sim, machine, iommufd } = await bench('6.12', 16n * PAGE)
    await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 1n)
    const ioas = await iommufd.newIoas()
    await boundAndAttached(machine, iommufd, EDU, ioas)
    const { segment } = await machine.memory(32 * 4096)
    const at = { iova: BASE, vaddr: segment.address as bigint, length: 12n * PAGE }
    const second = sim.spawn()
    const privileged = sim.spawn({ memlockBytes: null })

    expect(await iommufd.mapAt(ioas, at)).toBe(0)
    expect(await iommufd.mapAt(ioas, { ...at, iova: 2n * BASE })).toBe('ENOMEM')
    expect(await handed(sim, second, iommufd).mapAt(ioas, { ...at, iova: 2n * BASE })).toBe(0)
    const large = { ...at, iova: 3n * BASE, length: 32n * PAGE }
    expect(await handed(sim, privileged, iommufd).mapAt(ioas, large)).toBe(0)
    expect([sim.lockedPages, second.lockedPages, privileged.lockedPages]).toEqual([12n, 12n, 0n])
    expect(privileged.pinnedPages).toBe(32n)
  })

  test('is pinned from a process that is gone: EFAULT (fork_gone, fork_present)', async () => {
    const { sim, machine, iommufd } = await bench('6.12')
    const ioas = await iommufd.newIoas()
    const { segment } = await machine.memory(4096)
    const child = sim.spawn()
    const theirs = handed(sim, child, iommufd)
    await theirs.mapAt(ioas, { iova: BASE, vaddr: segment.address, length: PAGE })
    const { device, id } = await boundAndAttached(machine, iommufd, EDU, await iommufd.newIoas())
    expect(device).toBeGreaterThanOrEqual(0)
    const made = await iommufd.hwpt({ dev_id: id, pt_id: ioas })
    expect(made.answer).toBe(0)
    await iommufd.destroy(made.out_hwpt_id)

    child.exit()

    expect((await iommufd.hwpt({ dev_id: id, pt_id: ioas })).answer).toBe('EFAULT')
  })

  test('stays while a hwpt that was made by hand has it', async () => {
    const { sim, machine, iommufd } = await bench('6.12')
    const ioas = await iommufd.newIoas()
    const { segment } = await machine.memory(4096)
    const { device, id } = await boundAndAttached(machine, iommufd, EDU, ioas)
    const { out_hwpt_id: hwpt } = await iommufd.hwpt({ dev_id: id, pt_id: ioas })
    await iommufd.mapAt(ioas, { iova: BASE, vaddr: segment.address, length: PAGE })

    await machine.close(device)
    expect(sim.pinnedPages).toBe(1n)
    await iommufd.destroy(hwpt)
    expect(sim.pinnedPages).toBe(0n)
  })

  test('is given back when everything is closed', async () => {
    const { sim, machine, iommufd } = await bench('6.12', 64n * PAGE)
    const ioas = await iommufd.newIoas()
    const { segment } = await machine.memory(4096)
    await boundAndAttached(machine, iommufd, EDU, ioas)
    await iommufd.mapAt(ioas, { iova: BASE, vaddr: segment.address, length: PAGE })

    await machine.cleanUp()

    expect(sim.pinnedPages).toBe(0n)
  })
})

describe('IOMMU_OPTION', () => {
  test('RLIMIT_MODE is set with CAP_SYS_RESOURCE only: EPERM', async () => {
    const { sim } = await bench('6.12')
    const meek = sim.spawn({ mayRaiseLimits: false })
    const machine = new Machine('sim', meek.kernel, async () => {})
    machines.push(machine)
    const iommufd = await openIommufd(machine)

    expect(await iommufd.setOption(IOMMU_OPTION_RLIMIT_MODE, 0, 1n)).toBe('EPERM')
    expect((await iommufd.ask(IOMMU_IOAS_ALLOC, iommu_ioas_alloc, {})).answer).toBe(0)
  })
})
