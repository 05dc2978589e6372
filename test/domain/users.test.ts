/** Who uses a group or a device: everything that can is asked, in the daemon and outside. */

import { afterEach, describe, expect, test } from 'vitest'
import type { Kernel } from '../../src/kernel/port.ts'
import { cdevOf } from '../../src/kernel/sysfs.ts'
import { EDU, EDU_GROUP, readySpace, type World, world } from './machine.ts'
import { alice, person } from './people.ts'

const GROUPS = '/sys/kernel/iommu_groups'
const PLATFORM = 'MSFT0201:00'

let at: World

afterEach(() => at.domain.releaseAll('the test is over'))

interface Files {
  /** Names that a directory has besides. */
  readonly names?: Readonly<Record<string, readonly string[]>>
  readonly links?: Readonly<Record<string, string>>
}

/** A kernel with some of its calls replaced. */
const replaced = (kernel: Kernel, calls: Partial<Kernel>): Kernel =>
  new Proxy(kernel, {
    get: (target, name) => {
      const call = calls[name as keyof Kernel] ?? Reflect.get(target, name, target)
      return typeof call === 'function' ? call.bind(target) : call
    },
  })

/** The machine with more files than the simulator has. */
const withFiles =
  ({ names = {}, links = {} }: Files) =>
  (kernel: Kernel): Kernel =>
    replaced(kernel, {
      readDir: async (path) => {
        const own = await kernel.readDir(path)
        const more = names[path]
        return more === undefined || typeof own === 'number' ? own : [...own, ...more]
      },
      readLink: async (path) => links[path] ?? (await kernel.readLink(path)),
    })

const move = (name: string, client = alice) =>
  at.domain.binding.unbind(client, { devices: [name], wholeGroup: false })

describe('a group with a member that is neither a PCI nor a mediated device', () => {
  const directory = `${GROUPS}/${EDU_GROUP}/devices`
  const member = (driver?: string): Files => ({
    names: { [directory]: [PLATFORM] },
    links: {
      [`${directory}/${PLATFORM}/subsystem`]: '../../../bus/platform',
      ...(driver === undefined
        ? {}
        : { [`${directory}/${PLATFORM}/driver`]: `../../../bus/platform/drivers/${driver}` }),
    },
  })

  test('lists it with its bus and driver, and names it as what blocks the group', async () => {
    at = world({}, { over: withFiles(member('surface-button')) })
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })

    const group = await at.domain.inventory.group(EDU_GROUP)
    expect(group.viability).toBe('not-viable')
    expect(group.devices).toMatchObject([
      { name: EDU, busName: 'pci' },
      { name: PLATFORM, busName: 'platform', driver: 'surface-button', group: EDU_GROUP },
    ])
    expect(group.blockers).toEqual([
      {
        subject: PLATFORM,
        found: 'bound to surface-button',
        fix: 'take it from that driver by hand, or use another group',
      },
    ])
    await at.domain.spaces.create(alice, 'space')
    const space = await at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)
    expect(space.blockers).toEqual(group.blockers)
  })

  test('is viable while that one has no driver, and the policy need not allow it', async () => {
    at = world({}, { over: withFiles(member()) })
    const client = person('client', 104, { devices: [EDU] })

    await readySpace(at, client)

    expect((await at.domain.inventory.group(EDU_GROUP)).viability).toBe('viable')
  })

  test('has it refused as what vfiod does not serve, by its name', async () => {
    at = world({}, { over: withFiles(member('surface-button')) })
    await at.domain.spaces.create(alice, 'space')

    expect(await at.domain.inventory.device(PLATFORM)).toMatchObject({ busName: 'platform' })
    const refusal = {
      reason: 'UNSUPPORTED',
      message: expect.stringMatching(
        /^Cannot \w+ MSFT0201:00: it is on the bus platform, and vfiod serves PCI and mediated devices$/,
      ),
    }
    await expect(at.domain.devices.open(alice, 'space', PLATFORM)).rejects.toMatchObject(refusal)
    await expect(move(PLATFORM)).rejects.toMatchObject(refusal)
  })
})

describe('a physical function', () => {
  /** The network card as the PF, with the edu as its VF. */
  const PF = '0000:00:07.0'
  const sriov: Files = {
    names: { [`/sys/bus/pci/devices/${PF}`]: ['virtfn0'] },
    links: {
      [`/sys/bus/pci/devices/${PF}/virtfn0`]: `../${EDU}`,
      [`/sys/bus/pci/devices/${EDU}/physfn`]: `../${PF}`,
    },
  }
  const bind = () =>
    at.domain.binding.bind(alice, { devices: [PF], driver: undefined, wholeGroup: false })

  test('knows its virtual functions, and they know it', async () => {
    at = world({}, { over: withFiles(sriov) })

    expect((await at.domain.inventory.device(PF)).virtualFunctions).toEqual([EDU])
    expect((await at.domain.inventory.device(EDU)).physicalFunction).toBe(PF)
  })

  test('is not moved while one of them is open, or its group is in an address space', async () => {
    at = world({}, { over: withFiles(sriov) })
    const space = await readySpace(at, alice)
    const act = `Cannot move ${PF} to another driver: its virtual function ${EDU} would go with it, and`

    await expect(bind()).rejects.toMatchObject({
      reason: 'DEVICE_IN_USE',
      message: expect.stringContaining(
        `${act} its group ${EDU_GROUP} is a member of address space`,
      ),
    })
    await at.domain.devices.open(alice, space.id, EDU)
    await expect(bind()).rejects.toMatchObject({
      reason: 'DEVICE_IN_USE',
      message: `${act} it is open in address space "space" of pid 101 (alice), uid 1000; close it first`,
      details: { resource: { name: PF, owner: 'pid 101 (alice), uid 1000' } },
    })

    await at.domain.destroySpace(alice, 'space')
    expect((await bind())[0]?.driver).toBe('vfio-pci')
  })

  test('is not moved while a process outside has one of them open', async () => {
    at = world({}, { over: withFiles(sriov) })
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
    const path = `/dev/vfio/${EDU_GROUP}`
    const effect = { kind: 'hold', path, pid: 812, command: 'qemu' } as const
    at.sim.faults.inject({ name: 'held', nth: 1, times: 1, effect })

    await expect(bind()).rejects.toMatchObject({
      reason: 'DEVICE_IN_USE',
      message: expect.stringMatching(/virtual function .* pid 812 \(qemu\) has \/dev\/vfio\/3 or/),
    })
  })
})

describe('a group that a process outside has open', () => {
  test.each([
    ['its node', async () => `/dev/vfio/${EDU_GROUP}`],
    ['the cdev of a device of it', async () => (await cdevOf(at.sim.kernel, EDU)) ?? ''],
  ])('says who, and by what: %s', async (_what, node) => {
    at = world()
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
    const path = await node()
    const effect = { kind: 'hold', path, pid: 812, command: 'qemu' } as const
    at.sim.faults.inject({ name: 'held', nth: 1, times: 1, effect })
    await at.sim.kernel.readDir('/')

    const group = await at.domain.inventory.group(EDU_GROUP)
    expect(group.viability).toBe('viable')
    expect(group.holders).toEqual([{ pid: 812, command: 'qemu', path }])
    expect(group.blockers).toEqual([
      {
        subject: `group ${EDU_GROUP}`,
        found: `open in pid 812 (qemu) by ${path}`,
        fix: 'close it there',
      },
    ])
  })

  test('is refused with its holder as data: GROUP_IN_USE', async () => {
    at = world()
    await at.domain.binding.bind(alice, { devices: [EDU], driver: undefined, wholeGroup: false })
    const path = `/dev/vfio/${EDU_GROUP}`
    const effect = { kind: 'hold', path, pid: 812, command: 'qemu' } as const
    at.sim.faults.inject({ name: 'held', nth: 1, times: 1, effect })
    await at.domain.spaces.create(alice, 'space')

    await expect(at.domain.spaces.addGroup(alice, 'space', EDU_GROUP)).rejects.toMatchObject({
      reason: 'GROUP_IN_USE',
      details: {
        resource: { type: 'group', name: `${EDU_GROUP}`, owner: 'pid 812 (qemu)' },
        holder: { pids: [812], paths: [path] },
      },
    })
  })

  test('is not looked for in /proc where the daemon has the group, or no VFIO driver has a device', async () => {
    let looks = 0
    const over = (kernel: Kernel) =>
      replaced(kernel, {
        readDir: (path) => {
          if (path === '/proc') looks += 1
          return kernel.readDir(path)
        },
      })
    at = world({}, { over })
    await readySpace(at, alice)
    looks = 0

    expect((await at.domain.inventory.group(EDU_GROUP)).holders).toEqual([])
    const { group } = await at.domain.inventory.device('0000:00:1f.3')
    expect((await at.domain.inventory.group(group)).viability).toBe('not-viable')
    expect(looks).toBe(0)
  })
})
