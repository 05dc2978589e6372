/**
 * The machine one gets without a machine file: the guest that the kernel tests boot, a PC with an
 * Intel IOMMU of 39 bits, in groups and with devices of the same kinds.
 */

import type {
  FunctionSpec,
  GroupSpec,
  MachineSpec,
  ReservedRegion,
  VendorKind,
} from './machine-spec.ts'
import { PROFILES } from './profile.ts'

const QEMU = { subsystemVendor: 0x1af4, subsystemDevice: 0x1100 }

/** What every function may differ in, so that a list of functions says only what is special. */
export const PLAIN_FUNCTION = {
  kind: 'inert',
  vendor: 0x1af4,
  device: 0x1100,
  classCode: 0x00ff00,
  ...QEMU,
  revision: 0,
  bars: [],
  hasIntx: false,
  msiVectors: 0,
  msixVectors: 0,
  isPcie: false,
  isBridge: false,
  hasReset: false,
} as const satisfies Partial<FunctionSpec>

/** QEMU's edu device. */
export const EDU_FUNCTION = {
  ...PLAIN_FUNCTION,
  kind: 'edu',
  vendor: 0x1234,
  device: 0x11e8,
  classCode: 0x00ff00,
  revision: 0x10,
  bars: [{ index: 0, size: 0x10_0000n, kind: 'memory' }],
  hasIntx: true,
  msiVectors: 1,
} as const satisfies Partial<FunctionSpec>

/** A device of a vendor-like kind, ready to be described further. */
export const vendorFunction = (kind: VendorKind) =>
  ({
    ...PLAIN_FUNCTION,
    kind,
    ...PROFILES[kind].ids,
    classCode: 0x020000,
    bars: [{ index: 0, size: 0x1000n, kind: 'memory' }],
    msiVectors: 1,
    isPcie: true,
    hasReset: true,
  }) as const satisfies Partial<FunctionSpec>

const edu = (address: string, group: number): FunctionSpec => ({ ...EDU_FUNCTION, address, group })

const e1000e = (address: string, group: number, parent?: string): FunctionSpec => ({
  ...PLAIN_FUNCTION,
  address,
  group,
  vendor: 0x8086,
  device: 0x10d3,
  subsystemVendor: 0x8086,
  subsystemDevice: 0,
  classCode: 0x020000,
  bars: [
    { index: 0, size: 0x2_0000n, kind: 'memory' },
    { index: 1, size: 0x2_0000n, kind: 'memory' },
    { index: 2, size: 0x20n, kind: 'io' },
    { index: 3, size: 0x4000n, kind: 'memory' },
  ],
  hasIntx: true,
  msiVectors: 1,
  msixVectors: 5,
  isPcie: true,
  hasReset: true,
  nativeDriver: 'e1000e',
  boundDriver: 'e1000e',
  ...(parent === undefined ? {} : { parent }),
})

const functions: readonly FunctionSpec[] = [
  {
    ...PLAIN_FUNCTION,
    address: '0000:00:00.0',
    group: 0,
    vendor: 0x8086,
    device: 0x29c0,
    classCode: 0x060000,
  },
  edu('0000:00:04.0', 3),
  edu('0000:00:05.0', 4),
  {
    ...PLAIN_FUNCTION,
    address: '0000:00:06.0',
    group: 5,
    vendor: 0x1b36,
    device: 0x0005,
    classCode: 0x00ff00,
    bars: [
      { index: 0, size: 0x1000n, kind: 'memory' },
      { index: 1, size: 0x100n, kind: 'io' },
    ],
  },
  e1000e('0000:00:07.0', 6),
  {
    ...PLAIN_FUNCTION,
    address: '0000:00:08.0',
    group: 7,
    vendor: 0x1b36,
    device: 0x000c,
    classCode: 0x060400,
    bars: [{ index: 0, size: 0x1000n, kind: 'memory' }],
    hasIntx: true,
    isPcie: true,
    isBridge: true,
    nativeDriver: 'pcieport',
    boundDriver: 'pcieport',
  },
  {
    ...PLAIN_FUNCTION,
    address: '0000:00:1f.0',
    group: 8,
    vendor: 0x8086,
    device: 0x2918,
    classCode: 0x060100,
    revision: 2,
    nativeDriver: 'lpc_ich',
  },
  {
    ...PLAIN_FUNCTION,
    address: '0000:00:1f.2',
    group: 8,
    vendor: 0x8086,
    device: 0x2922,
    classCode: 0x010601,
    revision: 2,
    bars: [
      { index: 4, size: 0x20n, kind: 'io' },
      { index: 5, size: 0x1000n, kind: 'memory' },
    ],
    hasIntx: true,
    msiVectors: 1,
    nativeDriver: 'ahci',
    boundDriver: 'ahci',
  },
  {
    ...PLAIN_FUNCTION,
    address: '0000:00:1f.3',
    group: 8,
    vendor: 0x8086,
    device: 0x2930,
    classCode: 0x0c0500,
    revision: 2,
    bars: [{ index: 4, size: 0x40n, kind: 'io' }],
    hasIntx: true,
    nativeDriver: 'i801_smbus',
    boundDriver: 'i801_smbus',
  },
  e1000e('0000:01:00.0', 9, '0000:00:08.0'),
  e1000e('0000:01:00.1', 9, '0000:00:08.0'),
]

/** Where x86 takes writes for message signalled interrupts: never memory. */
export const MSI_WINDOW: ReservedRegion = { start: 0xfee0_0000n, last: 0xfeef_ffffn, kind: 'msi' }
/** What the driver of the chipset maps for its ISA bridge; a client may map over it. */
const ISA: ReservedRegion = { start: 0n, last: 0xff_ffffn, kind: 'direct-relaxable' }

const groups: readonly GroupSpec[] = [0, 3, 4, 5, 6, 7, 8, 9].map((id) => ({
  id,
  reserved: id === 8 ? [ISA, MSI_WINDOW] : [MSI_WINDOW],
}))

export const defaultMachine: MachineSpec = {
  kernelVersion: '6.12',
  iommu: {
    pageSizes: 0x4020_1000n,
    aperture: { start: 0n, last: 0x7f_ffff_ffffn },
    isCacheCoherent: false,
    model: {
      vtd: { capability: 0xd2_008c_2226_0286n, extendedCapability: 0xf0_0f4an, errata: 1 },
    },
  },
  memoryBytes: 1n << 44n,
  memlockBytes: null,
  dmaEntryLimit: 65535,
  drivers: ['vfio-pci', 'pcieport', 'ahci', 'e1000e', 'i801_smbus', 'lpc_ich'],
  groups,
  functions,
  mdevParents: [
    {
      name: 'mtty',
      kind: 'mtty',
      types: [
        { id: 'mtty-1', name: 'Single port serial', ports: 1 },
        { id: 'mtty-2', name: 'Dual port serial', ports: 2 },
      ],
      poolPorts: 24,
    },
  ],
  // Two of a kind, so that one can be migrated into the other without creating any first.
  mdevs: [
    { uuid: '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001', parent: 'mtty', type: 'mtty-2' },
    { uuid: '83b8f4f2-509f-382f-3c1e-e6bfe0fa1002', parent: 'mtty', type: 'mtty-2' },
  ],
}
