// The cause of a refusal of the kernel is found out where facts tell it: the simulator refuses, and
// files that it does not have are laid over its tree.

import { describe, expect, test } from 'vitest'
import {
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
} from '../../src/abi/container.ts'
import { VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS } from '../../src/abi/device.ts'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../src/abi/feature.ts'
import { VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_SET_CONTAINER } from '../../src/abi/group.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { intelVtd } from '../../src/backends/sim/spec/iommu-models.ts'
import type { FunctionSpec, MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { ERRNO, type ErrnoName } from '../../src/base/errno.ts'
import { VfiodError } from '../../src/base/error.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { COMPAT } from '../modes.ts'
import {
  EDU,
  EDU_GROUP,
  MTTY,
  OTHER_EDU,
  OTHER_EDU_GROUP,
  readySpace,
  type World,
  world,
} from './machine.ts'
import { alice } from './people.ts'

const PAGE = 0x1000n
const NO_IRQS = new AbortController().signal

/** Files by their text, directories by their names, links by where they lead; by path. */
type Tree = Readonly<Record<string, string | readonly string[] | { readonly link: string }>>

/** The simulated kernel with other files. */
const withTree =
  (tree: Tree) =>
  (kernel: Kernel): Kernel => {
    const at = (path: string) => (Object.hasOwn(tree, path) ? tree[path] : undefined)
    return new Proxy(kernel, {
      get: (target, name) => {
        if (name === 'readFile')
          return async (path: string) => {
            const text = at(path)
            return typeof text === 'string' ? new TextEncoder().encode(text) : target.readFile(path)
          }
        if (name === 'readDir')
          return async (path: string) => {
            const names = at(path)
            return Array.isArray(names) ? [...names] : target.readDir(path)
          }
        if (name === 'readLink')
          return async (path: string) => {
            const to = at(path)
            return typeof to === 'object' && 'link' in to ? to.link : target.readLink(path)
          }
        const value = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }

const worldWith = (tree: Tree, machine: Partial<MachineSpec> = {}): World =>
  world(machine, { over: withTree(tree) })

/** From now on every call of a request, or every open of a path, answers an errno. */
function refuse(
  { sim }: World,
  call: { readonly number: number } | { readonly path: string } | 'pread',
  errno: ErrnoName,
): void {
  sim.fault = (made) => {
    if (call === 'pread') return made.name === 'pread' ? -ERRNO[errno] : undefined
    if ('path' in call)
      return made.name === 'open' && made.path === call.path ? -ERRNO[errno] : undefined
    return made.name === 'ioctl' && made.request === call.number ? -ERRNO[errno] : undefined
  }
}

const refusedBy = async (call: Promise<unknown>): Promise<VfiodError> => {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof VfiodError) return error
  throw new Error('it was not refused', { cause: error })
}

/** Adds the group of the first edu to a space without one. */
async function addGroup(at: World): Promise<VfiodError> {
  const devices = [EDU]
  await at.domain.binding.bind(alice, { devices, driver: undefined, wholeGroup: false })
  await at.domain.spaces.create(alice, 'space')
  return refusedBy(at.domain.spaces.addGroup(alice, 'space', EDU_GROUP))
}

async function mapIn(at: World): Promise<VfiodError> {
  await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
  const item = { iova: PAGE, length: PAGE, memoryId: 'ram', offset: 0n, access: 'read' as const }
  return refusedBy(at.domain.spaces.map(alice, 'space', { items: [item], allOrNothing: true }))
}

async function openEdu(at: World) {
  await readySpace(at, alice)
  return at.domain.devices.open(alice, 'space', EDU)
}

const groupSpec = (id: number, changes: Partial<MachineSpec['groups'][number]>) => ({
  groups: [
    ...defaultMachine.groups.filter((group) => group.id !== id),
    { id, reserved: [], ...changes },
  ],
})

describe('an address space on a host whose /dev/vfio/vfio is not there', () => {
  const create = (tree: Tree) => {
    const at = worldWith(tree)
    refuse(at, { path: '/dev/vfio/vfio' }, 'ENOENT')
    return refusedBy(at.domain.spaces.create(alice, 'space'))
  }

  test.each([
    ['NODE_MISSING', { '/sys/class/misc': ['vfio', 'kvm'] }],
    ['NO_SUCH_DRIVER', { '/sys/class/misc': ['kvm'], '/sys/module': ['kvm'] }],
    ['UNSUPPORTED', { '/sys/class/misc': ['kvm'], '/sys/module': ['vfio'] }],
    ['KERNEL_REFUSED', {}],
  ] as const)('is %s by what the kernel has: %o', async (reason, tree) => {
    expect((await create(tree)).reason).toBe(reason)
  })
})

describe('a group that the kernel does not open', () => {
  const NODE = { path: `/dev/vfio/${EDU_GROUP}` }

  test('as a no-IOMMU group is UNSUPPORTED, and says what its node is', async () => {
    const at = worldWith({
      '/sys/class/vfio': [`noiommu-${EDU_GROUP}`],
      '/dev/vfio': ['vfio', `noiommu-${EDU_GROUP}`],
      [`/sys/kernel/iommu_groups/${EDU_GROUP}/name`]: 'vfio-noiommu\n',
    })
    refuse(at, NODE, 'ENOENT')

    expect(await addGroup(at)).toMatchObject({
      reason: 'UNSUPPORTED',
      message: expect.stringContaining('no-IOMMU group: its node is /dev/vfio/noiommu-3'),
      details: { causes: ['no-iommu-group'] },
    })
  })

  test('as a no-IOMMU group is listed as one, and the group of a mediated device is not', async () => {
    const at = worldWith({ [`/sys/kernel/iommu_groups/${EDU_GROUP}/name`]: 'vfio-noiommu\n' })
    const mtty = await at.domain.inventory.device(MTTY)

    expect((await at.domain.inventory.group(EDU_GROUP)).isNoIommu).toBe(true)
    expect((await at.domain.inventory.group(mtty.group)).isNoIommu).toBe(false)
  })

  test('by its name alone is one too, for the groups of mediated devices have that name as well', async () => {
    const at = worldWith({ [`/sys/kernel/iommu_groups/${EDU_GROUP}/name`]: 'vfio-noiommu\n' })
    const hidden = ['/sys/class/vfio', NODE.path]
    at.sim.fault = ({ path }) => (hidden.includes(path ?? '') ? -ERRNO.ENOENT : undefined)

    expect((await addGroup(at)).details.causes).toEqual(['no-iommu-group'])
  })

  test('whose node the daemon does not see is NODE_MISSING, and says how it is passed in', async () => {
    const at = worldWith({ '/sys/class/vfio': ['3', '4'], '/dev/vfio': ['vfio', '4'] })
    refuse(at, NODE, 'ENOENT')

    expect(await addGroup(at)).toMatchObject({
      reason: 'NODE_MISSING',
      message: expect.stringMatching(
        /does not see its node \/dev\/vfio\/3; pass it .*--device \/dev\/vfio\/3/,
      ),
    })
  })

  test('because a device cgroup forbids it is KERNEL_DENIED, and speaks of DeviceAllow=', async () => {
    const at = worldWith({ '/sys/class/vfio': ['3'] })
    refuse(at, NODE, 'EPERM')

    expect(await addGroup(at)).toMatchObject({
      reason: 'KERNEL_DENIED',
      message: expect.stringContaining('DeviceAllow='),
      details: { causes: ['device-cgroup'] },
    })
  })

  test('because it is open elsewhere names both ways in which it can be, where no holder is seen', async () => {
    const at = worldWith({})
    refuse(at, NODE, 'EBUSY')

    const error = await addGroup(at)

    expect(error.reason).toBe('GROUP_IN_USE')
    expect(error.details.causes).toEqual(['group-open-elsewhere', 'group-cdev-open'])
  })
})

describe('a group that the kernel does not take into a container', () => {
  test('for a firmware region is FIRMWARE_REGION with the region as its blocker', async () => {
    const reserved = [{ start: 0xbf7e7000n, last: 0xbf7effffn, kind: 'direct' as const }]
    const at = worldWith({}, groupSpec(EDU_GROUP, { reserved }))

    expect(await addGroup(at)).toMatchObject({
      reason: 'FIRMWARE_REGION',
      message: expect.stringContaining('1:1 mapping of 0xbf7e7000..0xbf7effff'),
      details: {
        errno: 'EINVAL',
        causes: ['firmware-region'],
        blockers: [{ subject: 'reserved region 0xbf7e7000..0xbf7effff of group 3' }],
      },
    })
  })

  test('for a firmware region on a kernel before 6.6 leaves the causes open', async () => {
    const text = '0x00000000bf7e7000 0x00000000bf7effff direct\n'
    const at = worldWith({
      [`/sys/kernel/iommu_groups/${EDU_GROUP}/reserved_regions`]: text,
      '/proc/sys/kernel/osrelease': '6.1.0-31-amd64\n',
    })
    refuse(at, VFIO_SET_IOMMU, 'EPERM')

    const error = await addGroup(at)

    expect(error.reason).toBe('KERNEL_REFUSED')
    expect(error.details.causes).toEqual(['interrupts-not-isolated', 'firmware-region'])
  })

  test('for want of interrupt remapping is INTERRUPTS_NOT_ISOLATED, and says what lifts it', async () => {
    const model = { ...defaultMachine.iommu.model, isolatesInterrupts: false }
    const at = worldWith({}, { iommu: { ...defaultMachine.iommu, model } })

    expect(await addGroup(at)).toMatchObject({
      reason: 'INTERRUPTS_NOT_ISOLATED',
      message: expect.stringContaining('allow_unsafe_interrupts=1'),
      details: { op: 'VFIO_SET_IOMMU', errno: 'EPERM' },
    })
  })

  test('is not for want of interrupt remapping where unsafe interrupts are allowed', async () => {
    const at = worldWith({
      '/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts': 'Y\n',
    })
    refuse(at, VFIO_SET_IOMMU, 'EPERM')

    const error = await addGroup(at)

    expect(error.message).toContain('none of the known causes is so')
    expect(error.reason).toBe('KERNEL_REFUSED')
  })

  test('without vfio_iommu_type1 is NO_SUCH_DRIVER, and names the module', async () => {
    const at = worldWith({ '/sys/module': ['vfio', 'vfio_pci'] })
    refuse(at, VFIO_SET_IOMMU, 'ENODEV')

    expect(await addGroup(at)).toMatchObject({
      reason: 'NO_SUCH_DRIVER',
      message: expect.stringContaining('modprobe vfio_iommu_type1'),
    })
  })

  test('whose IOMMU does not reach a mapping is IOMMU_TOO_NARROW, with ranges and mapping', async () => {
    const wide = intelVtd(48)
    const narrow = intelVtd(39)
    const machine = { iommu: wide, ...groupSpec(OTHER_EDU_GROUP, { iommu: narrow }) }
    const at = worldWith({}, machine)
    const devices = [OTHER_EDU]
    await at.domain.binding.bind(alice, { devices, driver: undefined, wholeGroup: false })
    await readySpace(at, alice)
    await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
    const far = { iova: 1n << 40n, length: PAGE, memoryId: 'ram', offset: 0n }
    const items = [{ ...far, access: 'read' as const }]
    await at.domain.spaces.map(alice, 'space', { items, allOrNothing: true })

    const error = await refusedBy(at.domain.spaces.addGroup(alice, 'space', OTHER_EDU_GROUP))

    expect(error).toMatchObject({
      reason: 'IOMMU_TOO_NARROW',
      message: expect.stringMatching(
        /group 4 takes iovas in .*0x7fffffffff only, and 0x10000000000\.\.0x10000000fff of memory "ram" is mapped/,
      ),
      details: { blockers: [{ subject: '0x10000000000..0x10000000fff of memory "ram"' }] },
    })
    // The look at what the group reaches leaves nothing behind.
    await at.domain.spaces.create(alice, 'other')
    await expect(at.domain.spaces.addGroup(alice, 'other', OTHER_EDU_GROUP)).resolves.toBeDefined()
  })

  test('with a mapping in a reserved region of it is IOVA_IN_USE, with the region', async () => {
    const text = '0x0000000000001000 0x0000000000001fff reserved\n'
    const at = worldWith({
      [`/sys/kernel/iommu_groups/${OTHER_EDU_GROUP}/reserved_regions`]: text,
    })
    const devices = [OTHER_EDU]
    await at.domain.binding.bind(alice, { devices, driver: undefined, wholeGroup: false })
    await readySpace(at, alice)
    await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
    const item = { iova: PAGE, length: PAGE, memoryId: 'ram', offset: 0n, access: 'read' as const }
    await at.domain.spaces.map(alice, 'space', { items: [item], allOrNothing: true })
    refuse(at, VFIO_GROUP_SET_CONTAINER, 'EINVAL')

    expect(
      await refusedBy(at.domain.spaces.addGroup(alice, 'space', OTHER_EDU_GROUP)),
    ).toMatchObject({
      reason: 'IOVA_IN_USE',
      message: expect.stringContaining(
        'in the reserved region 0x1000..0x1fff (reserved) of group 4',
      ),
      details: { causes: ['reserved-region-mapped'] },
    })
  })

  test('keeps the causes where facts cannot be read', async () => {
    const at = world(
      {},
      {
        over: (kernel) =>
          new Proxy(kernel, {
            get: (target, name) => {
              const value = Reflect.get(target, name, target)
              if (name !== 'readFile')
                return typeof value === 'function' ? value.bind(target) : value
              return async (path: string) =>
                path.includes('reserved_regions') ? -ERRNO.EMFILE : target.readFile(path)
            },
          }),
      },
    )
    refuse(at, VFIO_GROUP_SET_CONTAINER, 'EINVAL')

    expect((await addGroup(at)).details.causes).toEqual(['firmware-region', 'iommu-incompatible'])
  })
})

describe('a mapping that the kernel does not make', () => {
  const lose = (at: World) => {
    const lost = [VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, VFIO_IOMMU_UNMAP_DMA].map(
      ({ number }) => number,
    )
    at.sim.fault = (call) =>
      call.name === 'ioctl' && lost.includes(call.request ?? 0) ? -ERRNO.EINVAL : undefined
  }

  test('in a container that has lost its IOMMU is SPACE_NOT_READY', async () => {
    const at = worldWith({})
    await readySpace(at, alice)
    lose(at)

    expect(await mapIn(at)).toMatchObject({
      reason: 'SPACE_NOT_READY',
      message: expect.stringContaining('the container has no IOMMU any more'),
      details: { errno: 'EINVAL', causes: ['container-lost-iommu'] },
    })
  })

  test('is the same when it is unmapped', async () => {
    const at = worldWith({})
    await readySpace(at, alice)
    await at.domain.memories.allocate(alice, { id: 'ram', length: PAGE, hugePage: undefined })
    const item = { iova: PAGE, length: PAGE, memoryId: 'ram', offset: 0n, access: 'read' as const }
    await at.domain.spaces.map(alice, 'space', { items: [item], allOrNothing: true })
    lose(at)

    const { errors } = await at.domain.spaces.unmap(alice, 'space', 'all')
    expect(errors[0]).toMatchObject({
      reason: 'SPACE_NOT_READY',
      details: { op: 'VFIO_IOMMU_UNMAP_DMA', causes: ['container-lost-iommu'] },
    })
  })

  test('with a page that cannot be pinned is MEMORY_NOT_PINNABLE, and not a range of the client', async () => {
    const at = worldWith({})
    await readySpace(at, alice)
    refuse(at, VFIO_IOMMU_MAP_DMA, 'EFAULT')

    expect(await mapIn(at)).toMatchObject({
      reason: 'MEMORY_NOT_PINNABLE',
      details: { errno: 'EFAULT', causes: ['page-not-pinnable'] },
    })
  })

  test('for want of memory names the host where the daemon has CAP_IPC_LOCK', async () => {
    const at = worldWith({
      '/proc/self/status': 'VmLck:\t       8 kB\nCapEff:\t000001ffffffffff\n',
    })
    await readySpace(at, alice)
    refuse(at, VFIO_IOMMU_MAP_DMA, 'ENOMEM')

    expect(await mapIn(at)).toMatchObject({
      reason: 'LIMIT_REACHED',
      message: expect.stringContaining('the kernel has no memory for it'),
      details: { causes: ['out-of-memory'] },
    })
  })

  test('for want of memory names both limits where it cannot be told', async () => {
    const at = worldWith({})
    await readySpace(at, alice)
    refuse(at, VFIO_IOMMU_MAP_DMA, 'ENOMEM')

    expect(await mapIn(at)).toMatchObject({
      reason: 'MEMLOCK_EXCEEDED',
      details: { causes: ['memlock-exceeded', 'out-of-memory'] },
    })
  })
})

describe('a device that the kernel does not open', () => {
  test('as a virtual function of one with vfio-pci is VF_TOKEN_NEEDED, and names that one', async () => {
    const physical = '0000:3b:00.0'
    const at = worldWith({
      [`/sys/bus/pci/devices/${EDU}/physfn`]: { link: `../${physical}` },
      [`/sys/bus/pci/devices/${physical}/driver`]: { link: '../../../bus/pci/drivers/vfio-pci' },
    })
    await readySpace(at, alice)
    refuse(at, VFIO_GROUP_GET_DEVICE_FD, 'EACCES')

    expect(await refusedBy(at.domain.devices.open(alice, 'space', EDU))).toMatchObject({
      reason: 'VF_TOKEN_NEEDED',
      message: expect.stringContaining(
        `a virtual function of ${physical}, which is bound to vfio-pci`,
      ),
      details: { blockers: [{ subject: physical, found: 'bound to vfio-pci' }] },
    })
  })

  test('where iommufd attaches it without interrupt remapping is INTERRUPTS_NOT_ISOLATED', async () => {
    const at = world({}, { mode: COMPAT })
    await readySpace(at, alice)
    refuse(at, VFIO_GROUP_GET_DEVICE_FD, 'EPERM')

    const error = await refusedBy(at.domain.devices.open(alice, 'space', EDU))

    expect(error.details.causes).toContain('interrupts-not-isolated')
  })

  test('although its group is attached does not blame the IOMMU', async () => {
    const at = worldWith({})
    await readySpace(at, alice)
    refuse(at, VFIO_GROUP_GET_DEVICE_FD, 'EINVAL')

    expect(await refusedBy(at.domain.devices.open(alice, 'space', EDU))).toMatchObject({
      reason: 'DEVICE_GONE',
      details: { causes: ['device-not-enabled'] },
    })
  })
})

describe('vectors that the kernel does not arm', () => {
  const interrupts = `  31:   0   0  IR-PCI-MSIX-${EDU}   0-edge   vfio-msix[0](${EDU})\n`
  const arm = async (at: World) => {
    await openEdu(at)
    refuse(at, VFIO_DEVICE_SET_IRQS, 'EINVAL')
    const vectors = { name: EDU, index: 1, start: 0, count: 1 }
    const events = at.domain.irqs.watch(alice, vectors, NO_IRQS)
    return refusedBy(events.next())
  }

  test('because an exported fd has armed another kind are DEVICE_IN_USE, and name it', async () => {
    expect(await arm(worldWith({ '/proc/interrupts': interrupts }))).toMatchObject({
      reason: 'DEVICE_IN_USE',
      message: expect.stringContaining(`MSIX of ${EDU} is enabled`),
      details: { causes: ['other-index-armed'] },
    })
  })

  test('because of another kind are said so where it cannot be looked up', async () => {
    expect((await arm(worldWith({}))).details.causes).toEqual(['other-index-armed'])
  })
})

describe('a region that does not answer', () => {
  const read = (at: World) =>
    refusedBy(at.domain.devices.read(alice, { name: EDU, region: 0, offset: 0n, length: 4 }))
  const write = (at: World, offset: bigint, ...data: number[]) =>
    at.domain.devices.write(alice, { name: EDU, region: 7, offset, data: new Uint8Array(data) })

  test('because memory decoding is off is DECODING_OFF, and answers once it is on', async () => {
    const at = worldWith({})
    await openEdu(at)
    await write(at, 4n, 0, 0)

    expect(await read(at)).toMatchObject({
      reason: 'DECODING_OFF',
      message: expect.stringContaining(
        `memory decoding is off in the COMMAND register of ${EDU} (0x0)`,
      ),
      details: { errno: 'EIO', causes: ['decoding-off'] },
    })
    await write(at, 4n, 2, 0)
    const again = at.domain.devices.read(alice, { name: EDU, region: 0, offset: 0n, length: 4 })
    await expect(again).resolves.toHaveLength(4)
  })

  test('because the device is in D3 is DEVICE_ASLEEP', async () => {
    const at = worldWith({ [`/sys/bus/pci/devices/${EDU}/power_state`]: 'D3cold\n' })
    await openEdu(at)
    refuse(at, 'pread', 'EIO')

    expect(await read(at)).toMatchObject({
      reason: 'DEVICE_ASLEEP',
      message: expect.stringContaining(`${EDU} is in D3cold`),
    })
  })

  test('because nothing of the device answers is DEVICE_GONE', async () => {
    const at = worldWith({})
    await openEdu(at)
    refuse(at, 'pread', 'EIO')

    expect((await read(at)).reason).toBe('DEVICE_GONE')
  })

  test('because a boot framebuffer has claimed it is REGION_CLAIMED by that name', async () => {
    const resource = '0x00000000e0000000 0x00000000efffffff 0x0000000000040200\n'
    const iomem = [
      'd0000000-f7ffffff : PCI Bus 0000:00',
      `  e0000000-efffffff : ${EDU}`,
      '    e0000000-e02fffff : BOOTFB',
    ].join('\n')
    const at = worldWith({
      [`/sys/bus/pci/devices/${EDU}/resource`]: resource,
      '/proc/iomem': `${iomem}\n`,
    })
    await openEdu(at)
    refuse(at, 'pread', 'EBUSY')

    expect(await read(at)).toMatchObject({
      reason: 'REGION_CLAIMED',
      message: expect.stringContaining(`region 0 of ${EDU} is claimed by BOOTFB`),
      details: { resource: { type: 'device', name: EDU, owner: 'BOOTFB' } },
    })
  })
})

describe('a device that is not reset', () => {
  const resetOf = async (hasReset: boolean) => {
    const functions = defaultMachine.functions.map((each) =>
      each.address === EDU ? { ...each, hasReset } : each,
    )
    const at = worldWith({}, { functions })
    await openEdu(at)
    refuse(at, VFIO_DEVICE_RESET, 'ENOTTY')
    return refusedBy(at.domain.devices.reset(alice, EDU))
  }

  test('although it can be did not come back in time: DEVICE_GONE', async () => {
    expect(await resetOf(true)).toMatchObject({
      reason: 'DEVICE_GONE',
      details: { causes: ['reset-timed-out'] },
    })
  })

  test('because it cannot be is UNSUPPORTED', async () => {
    expect(await resetOf(false)).toMatchObject({
      reason: 'UNSUPPORTED',
      details: { causes: ['no-reset'] },
    })
  })
})

describe('an arc that a device does not take', () => {
  /** Answers every set of the state with an errno; reading the state goes on. */
  const refusingArcs =
    (errno: ErrnoName) =>
    (kernel: Kernel): Kernel =>
      new Proxy(kernel, {
        get: (target, name) => {
          const value = Reflect.get(target, name, target)
          if (name !== 'ioctl') return typeof value === 'function' ? value.bind(target) : value
          return async (fd: number, request: number, arg: Uint8Array) => {
            const isFeature = request === VFIO_DEVICE_FEATURE.number
            const flags = isFeature ? vfio_device_feature.decode(arg).flags : 0
            const wanted = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE
            return flags === wanted ? -ERRNO[errno] : target.ioctl(fd, request, arg)
          }
        },
      })

  const setState = async (errno: ErrnoName) => {
    const at = world({}, { over: refusingArcs(errno) })
    const { group } = await at.domain.inventory.device(MTTY)
    await at.domain.spaces.create(alice, 'space')
    await at.domain.spaces.addGroup(alice, 'space', group)
    await at.domain.devices.open(alice, 'space', MTTY)
    return refusedBy(at.domain.migration.setState(alice, MTTY, 'STOP'))
  }

  test('and stays in its state is ARC_BLOCKED: nothing was loaded that it could refuse', async () => {
    expect(await setState('EINVAL')).toMatchObject({
      reason: 'ARC_BLOCKED',
      message: expect.stringContaining('it is in RUNNING'),
      details: { causes: ['arc-blocked'] },
    })
  })

  test('because its driver failed is not said to be in ERROR, or asleep', async () => {
    expect(await setState('EIO')).toMatchObject({
      reason: 'KERNEL_REFUSED',
      details: { causes: ['driver-failed'] },
    })
  })
})

describe('a device that a driver does not let go, or does not take', () => {
  const NIC = '0000:3c:00.0'
  const nic = (changes: Partial<FunctionSpec>): Partial<MachineSpec> => {
    const [first] = defaultMachine.functions.filter(({ address }) => address === EDU)
    if (first === undefined) throw new Error('the default machine has no edu')
    return { functions: [{ ...first, address: NIC, group: 40, ...changes }], ...groupSpec(40, {}) }
  }

  test('because its id is in the list of vfio-pci says so, and how it is taken out', async () => {
    const at = worldWith(
      {},
      nic({ vendor: 0x10de, device: 0x1db4, nativeDriver: 'vfio-pci', boundDriver: 'vfio-pci' }),
    )

    const devices = [NIC]
    const unbound = at.domain.binding.unbind(alice, { devices, wholeGroup: false })

    expect(await refusedBy(unbound)).toMatchObject({
      reason: 'BIND_FAILED',
      message: expect.stringMatching(
        /vfio-pci has the id 10de:1db4 in its list .* write "10de 1db4" to .*\/vfio-pci\/remove_id/,
      ),
      details: { causes: ['dynamic-id'] },
    })
  })

  test('because sysfs is read-only says so', async () => {
    const at = worldWith({})
    at.sim.fault = (call) => (call.name === 'writeFile' ? -ERRNO.EROFS : undefined)
    const devices = [EDU]

    const bound = at.domain.binding.bind(alice, { devices, driver: undefined, wholeGroup: false })

    expect(await refusedBy(bound)).toMatchObject({
      reason: 'BIND_FAILED',
      message: expect.stringContaining('sysfs is mounted read-only'),
    })
  })
})

describe('sysfs that cannot be read', () => {
  test.each(['EMFILE', 'EACCES', 'EIO'] as const)(
    'does not read as a host without devices: %s',
    async (errno) => {
      const at = worldWith({})
      at.sim.fault = (call) => (call.name === 'readDir' ? -ERRNO[errno] : undefined)

      const error = await refusedBy(at.domain.inventory.groups())

      expect(error.message).toContain('Cannot read /sys/kernel/iommu_groups')
      expect(error.details).toMatchObject({ op: 'read sysfs', errno })
    },
  )
})
