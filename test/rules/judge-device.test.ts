import { describe, expect, test } from 'vitest'
import {
  claimantOf,
  judgeEnable,
  judgeIrqs,
  judgeRegion,
  judgeSriov,
  powerStateOf,
  type RegionFacts,
} from '../../src/rules/causes/judge-device.ts'

const NAME = '0000:01:00.0'

/** A configuration space with memory decoding on, and where wanted power management in a D-state. */
function config({ command = 2, dState = undefined as number | undefined } = {}): Uint8Array {
  const bytes = new Uint8Array(256)
  bytes.set([0x86, 0x80, 0x00, 0x10, command])
  if (dState === undefined) return bytes
  bytes[0x06] = 0x10
  bytes[0x34] = 0x50
  // Another capability first.
  bytes.set([0x05, 0x60], 0x50)
  bytes.set([0x01, 0x00, 0x00, 0x00, dState], 0x60)
  return bytes
}

const region = (changes: Partial<RegionFacts>): RegionFacts => ({
  name: NAME,
  region: 0,
  config: undefined,
  powerState: undefined,
  bar: undefined,
  iomem: undefined,
  ...changes,
})

const proofs = (changes: Partial<RegionFacts>) =>
  judgeRegion(region(changes))
    .filter(({ isSo }) => isSo)
    .map(({ cause }) => cause)

describe('the D-state of PMCSR', () => {
  test.each([0, 3])('is found behind other capabilities: D%i', (dState) => {
    expect(powerStateOf(config({ dState }))).toBe(dState)
  })

  test('is unknown without the capability, and where the list goes round', () => {
    expect(powerStateOf(config())).toBeUndefined()
    const loop = config({ dState: 0 })
    loop.set([0x05, 0x50], 0x60)
    expect(powerStateOf(loop)).toBeUndefined()
  })
})

describe('a region that does not answer', () => {
  test.each([
    ['decoding-off', { config: config({ command: 0 }) }],
    ['decoding-off', { config: config({ command: 1 }), region: 5 }],
    ['device-asleep', { config: config({ dState: 3 }) }],
    ['device-asleep', { powerState: 'D3hot' }],
    ['device-gone', { config: new Uint8Array(256).fill(0xff) }],
  ])('has the cause %s', (cause, changes) => {
    expect(proofs(changes)).toEqual([cause])
  })

  test('sleeps and does not decode: both are said', () => {
    expect(proofs({ config: config({ command: 0, dState: 3 }) })).toEqual([
      'device-asleep',
      'decoding-off',
    ])
  })

  test('does not need decoding for the configuration space', () => {
    expect(proofs({ config: config({ command: 0 }), region: 7 })).toEqual([])
  })

  test('of a device that answers rules out that it is gone, asleep, or does not decode', () => {
    expect(judgeRegion(region({ config: config() })).map(({ cause }) => cause)).toEqual([
      'device-gone',
      'device-asleep',
      'device-does-not-wake',
      'decoding-off',
    ])
  })

  test('without facts rules out nothing', () => {
    expect(judgeRegion(region({}))).toEqual([])
  })
})

describe('the claimant of a BAR', () => {
  const range = { start: 0xe0000000n, last: 0xefffffffn }
  const tree = (...inside: string[]) =>
    [
      '00001000-0009ffff : System RAM',
      'd0000000-f7ffffff : PCI Bus 0000:00',
      `  e0000000-efffffff : ${NAME}`,
      ...inside.map((line) => `    ${line}`),
      '  f0000000-f0003fff : 0000:02:00.0',
      '    f0000000-f0003fff : nvme',
    ].join('\n')

  test.each([
    ['e0000000-e02fffff : BOOTFB', 'BOOTFB'],
    ['e0000000-efffffff : nouveau', 'nouveau'],
    ['e0000000-efffffff : vfio-pci', undefined],
    ['e0000000-efffffff : vfio', undefined],
  ])('by "%s" is %s', (line, owner) => {
    expect(claimantOf(tree(line), range, NAME)).toBe(owner)
  })

  test('is unknown where only the device itself is there, or addresses are hidden', () => {
    expect(claimantOf(tree(), range, NAME)).toBeUndefined()
    expect(claimantOf('00000000-00000000 : BOOTFB', range, NAME)).toBeUndefined()
  })
})

describe('vectors that are not armed', () => {
  const interrupts = (text: string) => judgeIrqs({ name: NAME, wanted: 'MSI', interrupts: text })

  test.each([
    [`vfio-intx(${NAME})`, 'INTX'],
    [`vfio-msix[3](${NAME})`, 'MSIX'],
  ])('have the cause %s', (text, kind) => {
    expect(interrupts(` 31:  0  IR-PCI  ${text}\n`)).toMatchObject([
      { cause: 'other-index-armed', isSo: true, found: expect.stringContaining(`${kind} of`) },
    ])
  })

  test('are not kept back by their own kind, or by another device', () => {
    const not = [{ cause: 'other-index-armed', isSo: false }]

    expect(interrupts(`31: vfio-msi[0](${NAME})`)).toEqual(not)
    expect(interrupts('31: vfio-msix[0](0000:02:00.0)')).toEqual(not)
  })

  test('of ERR and REQ have nothing to do with the others', () => {
    const text = `vfio-msix[3](${NAME})`

    expect(judgeIrqs({ name: NAME, wanted: 'REQ', interrupts: text })).toEqual([])
  })
})

describe('a device that does not open', () => {
  const facts = {
    name: NAME,
    exists: true,
    driver: 'vfio-pci',
    isVfio: true,
    physical: undefined,
    hasVirtual: false,
    isSriov: false,
    hasToken: false,
  }

  test('needs no token where its physical function has the driver of its vendor', () => {
    const physical = { name: '0000:01:00.1', driver: 'ixgbe' }

    expect(judgeEnable({ ...facts, physical }).some(({ isSo }) => isSo)).toBe(false)
  })

  test('needs one as a physical function with virtual ones', () => {
    expect(judgeEnable({ ...facts, hasVirtual: true })[0]).toMatchObject({
      cause: 'vf-token-missing',
      found: expect.stringContaining('virtual functions are in use'),
    })
  })

  test('does not take the token that is given: it is wrong, or the device has no use for one', () => {
    const given = { ...facts, hasToken: true }
    const physical = { name: '0000:01:00.1', driver: 'vfio-pci' }
    const proved = (changes: object) =>
      judgeEnable({ ...given, ...changes }).find(({ isSo }) => isSo)

    expect(proved({ physical })).toMatchObject({
      cause: 'vf-token-wrong',
      found: 'the VF token that was given is not that of 0000:01:00.1',
    })
    expect(proved({ isSriov: true, hasVirtual: true })?.cause).toBe('vf-token-wrong')
    expect(proved({})?.cause).toBe('vf-token-unused')
    expect(proved({ physical: { ...physical, driver: 'igb' } })).toMatchObject({
      cause: 'vf-token-unused',
      found: `0000:01:00.1, of which ${NAME} is a virtual function, is not bound to vfio-pci, and then ${NAME} takes no VF token`,
    })
    expect(proved({ isSriov: true })).toBeUndefined()
  })

  test('has another driver by now, none, or is not there', () => {
    const found = (changes: object) =>
      judgeEnable({ ...facts, ...changes }).find(({ isSo }) => isSo)

    expect(found({ driver: 'nvme', isVfio: false })).toMatchObject({
      cause: 'device-not-in-group',
      found: `${NAME} has the driver nvme by now`,
    })
    expect(found({ driver: undefined, isVfio: false })).toMatchObject({
      found: `${NAME} has no driver by now`,
    })
    expect(found({ exists: false, isVfio: false })).toMatchObject({
      found: `${NAME} is not there any more`,
    })
  })
})

describe('virtual functions that are not made', () => {
  const found = (driver: string | undefined) =>
    judgeSriov(NAME, { driver }).find(({ isSo }) => isSo)

  test('need a driver, and one that makes them', () => {
    expect(found(undefined)).toMatchObject({
      cause: 'sriov-unsupported',
      found: `${NAME} has no driver, and it is a driver that makes virtual functions`,
    })
    expect(found('ahci')).toMatchObject({ found: 'its driver ahci makes no virtual functions' })
    expect(found('vfio-pci')).toMatchObject({ fix: expect.stringContaining('enable_sriov') })
  })

  test('of a device that is not there say nothing of its driver', () => {
    expect(judgeSriov(NAME, undefined)).toEqual([{ cause: 'sriov-unsupported', isSo: false }])
  })
})
