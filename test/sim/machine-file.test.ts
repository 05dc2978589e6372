/** The file of a simulated machine, and the document that describes it. */

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd } from '../../src/abi/device.ts'
import { loadMachineFile, parseMachine } from '../../src/backends/sim/machine-file/machine-file.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { FUNCTION_KINDS, MDEV_KINDS } from '../../src/backends/sim/spec/machine-spec.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { U64_MAX } from '../../src/base/units.ts'

const document = readFileSync(new URL('../../docs/machine-file.md', import.meta.url), 'utf8')
const example = /```toml\n(.*?)```/s.exec(document)?.[1] ?? ''

const refusalOf = (text: string): string => {
  try {
    parseMachine(text, 'machine.toml')
  } catch (error) {
    return (error as Error).message
  }
  return 'accepted'
}

const edu = (more: string): string =>
  `[[functions]]\naddress = "0000:00:04.0"\nkind = "edu"\ngroup = 3\n${more}`

describe('faults and profiles of a machine file', () => {
  const device = `[[functions]]\naddress = "0000:00:09.0"\nkind = "mlx5-like"\ngroup = 9\nbound_driver = "vfio-pci"\n`
  const workload = 'workload = { range = { start = 0, last = 0xffff }, pages_per_step = 3 }\n'
  const fault = (effect: string): string => `[[faults]]\nname = "x"\ncall = "open"\n${effect}\n`

  test('strike from the start', async () => {
    const spec = parseMachine(device + workload + fault('effect = { errno = "EMFILE" }'), 'm')
    const { kernel } = createSim(spec, { time: 'poked' })

    expect(spec.functions[0]?.workload).toMatchObject({ pagesPerStep: 3, pattern: 'sequential' })
    expect(await kernel.open('/dev/vfio/vfio', 2)).toBe(-24)
    expect(await kernel.open('/dev/vfio/vfio', 2)).toBeGreaterThan(0)
  })

  test('are refused where they make no sense', () => {
    expect(refusalOf(fault('effect = { errno = "ENONSENSE" }'))).toContain('faults[0]')
    expect(refusalOf(fault('request = "VFIO_X"\neffect = { stall = 1 }'))).toContain(
      'no such request',
    )
    expect(refusalOf(edu('state = { bytes = 4096 }\n'))).toContain('"edu" has none')
  })
})

describe('the example of docs/machine-file.md', () => {
  test('describes what it says', () => {
    const machine = parseMachine(example, 'example')

    expect(machine.memlockBytes).toBe(0x10000n)
    expect(machine.iommu.aperture).toEqual({ start: 0n, last: 0xffff_ffff_ffffn })
    expect(machine.groups.map(({ id }) => id)).toEqual([26, 3, 7])
    expect(machine.functions.map(({ address, kind }) => [address, kind])).toEqual([
      ['0000:00:04.0', 'edu'],
      ['0000:00:02.0', 'inert'],
      ['0000:01:00.0', 'inert'],
      ['0000:01:00.1', 'inert'],
    ])
    expect(machine.functions[2]?.bars[1]).toEqual({
      index: 1,
      size: 0x1000_0000n,
      kind: 'memory64',
    })
  })

  test('runs, with what it binds to vfio-pci at the start', async () => {
    const { kernel } = createSim(parseMachine(example, 'example'), { time: 'poked' })

    expect(await kernel.readDir('/dev/vfio')).toEqual(expect.arrayContaining(['vfio', '26']))
    expect(await kernel.readLink('/sys/bus/pci/devices/0000:01:00.1/driver')).toMatch(
      /snd_hda_intel$/,
    )
  })

  test('has every kind of function and of mediated device', () => {
    for (const kind of [...FUNCTION_KINDS, ...MDEV_KINDS]) expect(document).toContain(`\`${kind}\``)
  })

  test('has every key that a file may have', () => {
    const keysIn = (file: string, indent: number): string[] => {
      const source = readFileSync(
        new URL(`../../src/backends/sim/machine-file/${file}`, import.meta.url),
        'utf8',
      )
      const key = `^ {${indent}}([a-z_]+): (?:z|u64|iommu|range|unsigned|pciAddress)`
      return [...source.matchAll(new RegExp(key, 'gm'))].flatMap(([, name]) => name ?? [])
    }
    const keys = [
      ...keysIn('machine-file.ts', 4),
      ...keysIn('iommu.ts', 2),
      ...keysIn('functions.ts', 2),
      ...keysIn('functions.ts', 4),
    ]
    expect(keys.length).toBeGreaterThan(20)
    for (const key of keys) expect(document).toContain(`\`${key}\``)
  })
})

describe('what the host uses in a machine file', () => {
  const disk = `${edu('disks = [{ name = "sda", partitions = ["sda1"] }]\n')}`

  test('is on disks, partitions and volumes that the machine has', () => {
    const host = '[host]\nvolumes = [{ name = "md0", on = ["sda1"] }]\nswaps = ["md0"]\n'

    expect(parseMachine(host + disk, 'm').host?.swaps).toEqual(['md0'])
  })

  test.each([
    ['mounts = [{ device = "sdb", point = "/" }]', 'host.mounts[0].device'],
    ['swaps = ["sda2"]', 'host.swaps[0]'],
    ['volumes = [{ name = "md0", on = ["sdb"] }]', 'host.volumes[0].on'],
  ])('is refused on others: %s', (table, path) => {
    expect(refusalOf(`[host]\n${table}\n${disk}`)).toContain(path)
  })

  test('has the example of the document', () => {
    const [, text = ''] = /```toml\n(\[host\].*?)```/s.exec(document) ?? []
    const { functions, host } = parseMachine(`drivers = ["nvme", "igb"]\n${text}`, 'm')

    expect(host?.mounts[0]).toEqual({ device: 'dm-0', point: '/', type: 'ext4' })
    expect(functions[0]?.disks?.[0]?.partitions).toHaveLength(3)
    expect(functions[1]?.interfaces?.[0]).toMatchObject({ isUp: true, hasDefaultRoute: true })
  })
})

describe('the IOMMU of a machine file', () => {
  const iommuOf = (table: string) => parseMachine(`[iommu]\n${table}`, 'm').iommu

  test('is a VT-d that tracks dirty pages, of as many bits as are said', () => {
    const { aperture, model, pageSizes } = iommuOf('model = "vt-d"\naddress_bits = 48')

    expect(pageSizes).toBe(0x4020_1000n)
    expect(aperture).toEqual({ start: 0n, last: 0xffff_ffff_ffffn })
    expect(model).toMatchObject({ dirtyTracking: 'on-demand', canNest: true })
    // Tables of three and four levels, and 47 for the highest bit.
    expect((model?.vtd?.capability ?? 0n) & 0x3f_1f00n).toBe(0x2f_0600n)
    expect(iommuOf('model = "vt-d"').aperture.last).toBe(0x7f_ffff_ffffn)
  })

  test('shows in its registers what it is told to be without', () => {
    const { model } = iommuOf('model = "vt-d"\ndirty_tracking = false\nnesting = false')

    expect(model?.dirtyTracking).toBeUndefined()
    expect(model?.canNest).toBe(false)
    expect((model?.vtd?.extendedCapability ?? 0n) & ((1n << 45n) | (1n << 26n))).toBe(0n)
  })

  test('is an AMD one of 64 bits, which keeps what HyperTransport takes from every group', () => {
    const machine = parseMachine(`[iommu]\nmodel = "amd"\n${edu('')}`, 'm')

    expect(machine.iommu.aperture.last).toBe(U64_MAX)
    expect(machine.iommu.model?.dirtyTracking).toBe('on-demand')
    expect(machine.groups[0]?.reserved.map(({ start }) => start)).toEqual([
      0xfee0_0000n,
      0xfd_0000_0000n,
    ])
  })

  test.each([
    ['0x1000', 0x4020_1000n],
    ['0x4000', 0x200_4000n],
    ['0x1_0000', 0x2001_0000n],
  ])('is an SMMUv3 with a granule of %s', (granule, pageSizes) => {
    const iommu = iommuOf(`model = "smmuv3"\ngranule = ${granule}\naddress_bits = 44`)

    expect(iommu).toMatchObject({ pageSizes, aperture: { last: 0xfff_ffff_ffffn } })
    expect(iommu.model).toMatchObject({ dirtyTracking: 'always', takesNestingType: true })
  })

  test('may be another one for a group, with what that one keeps', () => {
    const { groups, iommu } = parseMachine(
      '[iommu]\nmodel = "amd"\n' +
        '[[groups]]\nid = 3\niommu = { model = "smmuv3", dirty_tracking = false }\n' +
        '[[groups]]\nid = 4\nreserved = []\n',
      'm',
    )

    expect(iommu.aperture.last).toBe(U64_MAX)
    expect(groups[0]?.iommu?.model).toEqual({ takesNestingType: true })
    expect(groups[0]?.reserved).toEqual([{ start: 0x800_0000n, last: 0x80f_ffffn, kind: 'sw-msi' }])
    expect(groups[1]).toEqual({ id: 4, reserved: [] })
  })

  test('without interrupt remapping is refused to an iommufd: EPERM', async () => {
    const { kernel } = createSim(
      parseMachine(
        `[iommu]\nmodel = "vt-d"\ninterrupt_remapping = false\n${edu('bound_driver = "vfio-pci"')}`,
        'm',
      ),
      { time: 'poked' },
    )
    const iommufd = await kernel.open('/dev/iommu', 2)
    const cdev = await kernel.open('/dev/vfio/devices/vfio0', 2)
    const bind = vfio_device_bind_iommufd.encode({ argsz: vfio_device_bind_iommufd.size, iommufd })

    expect(await kernel.ioctl(cdev, VFIO_DEVICE_BIND_IOMMUFD.number, bind)).toBe(-ERRNO.EPERM)
  })

  test.each([
    ['no model and no pages', 'aperture = { start = 0, last = 1 }', 'iommu.page_sizes'],
    ['no model and no aperture', 'page_sizes = 4096', 'iommu.aperture'],
    ['an unknown model', 'model = "vtd"', 'iommu.model'],
    ['pages besides a model', 'model = "amd"\npage_sizes = 4096', '"amd" decides it'],
    ['address bits of AMD', 'model = "amd"\naddress_bits = 48', '"amd" decides it'],
    ['a granule of VT-d', 'model = "vt-d"\ngranule = 4096', '"vt-d" has none'],
    ['nesting of an SMMUv3', 'model = "smmuv3"\nnesting = true', '"smmuv3" has none'],
    ['no model to track', 'page_sizes = 1\ndirty_tracking = true', 'only a model has it'],
    ['a width VT-d lacks', 'model = "vt-d"\naddress_bits = 40', '39, 48 or 57'],
    ['a width beyond 4 KiB', 'model = "smmuv3"\naddress_bits = 52', '32 to 48'],
    ['a granule that is none', 'model = "smmuv3"\ngranule = 8192', 'iommu.granule'],
  ])('with %s is refused', (_what, table, message) => {
    expect(refusalOf(`[iommu]\n${table}`)).toContain(message)
  })
})

describe('a machine file', () => {
  test('may be empty: a machine without devices', () => {
    expect(parseMachine('', 'machine.toml').functions).toEqual([])
  })

  test('may extend the default machine, and stands in for what it has of the same name', () => {
    const plain = parseMachine('extends = "default"', 'm')

    expect(plain).toMatchObject({ ...defaultMachine, vfioContainer: 'type1', time: 'auto' })

    const {
      functions,
      groups,
      mdevs: devices,
    } = parseMachine(`extends = "default"\n[iommu]\nmodel = "amd"\n${edu('revision = 9')}`, 'm')
    expect(functions).toHaveLength(defaultMachine.functions.length)
    expect(functions.find(({ address }) => address === '0000:00:04.0')?.revision).toBe(9)
    expect(devices).toEqual(defaultMachine.mdevs)
    // The range of HyperTransport is AMD's; what the firmware reserves stays.
    expect(groups.find(({ id }) => id === 8)?.reserved.map(({ start }) => start)).toEqual([
      0n,
      0xfee0_0000n,
      0xfd_0000_0000n,
    ])
  })

  test('that is not TOML is refused with the line', () => {
    const message = refusalOf('kernel_version = "6.12"\ngroups = [\n')
    expect(message).toContain('machine.toml')
    expect(message).toMatch(/2:/)
  })

  test.each([
    ['an unknown key', 'colour = "red"', 'colour'],
    ['a container of neither', 'vfio_container = "vfio"', 'vfio_container'],
    [
      'an iommufd before there was one',
      'kernel_version = "6.1"\nvfio_container = "iommufd"',
      'vfio_container',
    ],
    ['another base', 'extends = "q35"', 'extends'],
    ['an unknown kind', edu('').replace('edu', 'gpu'), 'functions[0].kind'],
    ['a malformed address', edu('').replace('0000:00:04.0', '04.0'), 'functions[0].address'],
    ['a BAR that is no power of two', edu('bars = [{ index = 0, size = 3 }]'), 'bars[0].size'],
    [
      'two BARs in one place',
      edu('bars = [{index = 0, size = 16, kind = "memory64"}, {index = 1, size = 16}]'),
      'functions[0].bars',
    ],
    ['a driver that is not loaded', edu('bound_driver = "nvme"'), 'functions[0].bound_driver'],
    ['a bridge that is not there', edu('parent = "0000:00:01.0"'), 'functions[0].parent'],
    ['the same function twice', edu('') + edu(''), 'functions[1].address'],
    ['an mdev without a parent', mdevs(''), 'mdevs[0].parent'],
    [
      'a range that ends before it starts',
      '[iommu]\npage_sizes = 4096\naperture = { start = 2, last = 1 }',
      'iommu.aperture',
    ],
    [
      'a number above 64 bits',
      '[iommu]\npage_sizes = "0x10000000000000000"\naperture = { start = 0, last = 1 }',
      'iommu.page_sizes',
    ],
  ])('with %s is refused with the field', (_what, text, field) => {
    expect(refusalOf(text)).toContain(field)
  })

  test('that is not there is refused with its path', () => {
    expect(() => loadMachineFile('/nonexistent/machine.toml')).toThrow(
      'Cannot read /nonexistent/machine.toml: ENOENT',
    )
  })
})

function mdevs(parents: string): string {
  return `${parents}[[mdevs]]\nuuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"\nparent = "mtty"\ntype = "x"\n`
}
