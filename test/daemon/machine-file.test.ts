/** The file of a simulated machine, and the document that describes it. */

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { createSim } from '../../src/backends/sim/sim.ts'
import { loadMachineFile, parseMachine } from '../../src/daemon/machine-file.ts'

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

  test('has every key that a file may have', () => {
    const source = readFileSync(
      new URL('../../src/daemon/machine-file.ts', import.meta.url),
      'utf8',
    )
    const keys = [...source.matchAll(/^ {4}([a-z_]+): (?:z|u64|iommu|range|unsigned|pciAddress)/gm)]
    expect(keys.length).toBeGreaterThan(20)
    for (const [, key] of keys) expect(document).toContain(`\`${key}\``)
  })
})

describe('a machine file', () => {
  test('may be empty: a machine without devices', () => {
    expect(parseMachine('', 'machine.toml').functions).toEqual([])
  })

  test('that is not TOML is refused with the line', () => {
    const message = refusalOf('kernel_version = "6.12"\ngroups = [\n')
    expect(message).toContain('machine.toml')
    expect(message).toMatch(/2:/)
  })

  test.each([
    ['an unknown key', 'colour = "red"', 'colour'],
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
