/**
 * What a simulated machine is made of. A machine is data: `createSim` builds a kernel from it, and
 * a machine file (docs/machine-file.md) says the same in TOML.
 *
 * Terms. A *function* is one PCI function, named by its address. A *group* is an IOMMU group. A
 * *parent* makes mediated devices of its *types*. What a function's registers do is its *kind*.
 */

import type { Range } from '../../../rules/range-map.ts'
import type { FaultSpec } from './fault-spec.ts'
import type { HostParts, HostSpec } from './host-spec.ts'

/** Kinds that behave as the devices of some driver do: profile.ts. */
export const VENDOR_KINDS = [
  'mlx5-like',
  'hisilicon-like',
  'pds-like',
  'v1-ndma',
  'v1-queue',
  'hostile',
] as const
export type VendorKind = (typeof VENDOR_KINDS)[number]

/** edu: QEMU's teaching device, with DMA and interrupts. inert: config space, and memory
 * behind its BARs. */
export const FUNCTION_KINDS = ['edu', 'inert', ...VENDOR_KINDS] as const
export type FunctionKind = (typeof FUNCTION_KINDS)[number]

/** Kinds of /sys/kernel/iommu_groups/N/reserved_regions. */
export const RESERVED_KINDS = ['direct', 'direct-relaxable', 'reserved', 'msi', 'sw-msi'] as const
export type ReservedKind = (typeof RESERVED_KINDS)[number]

export interface ReservedRegion extends Range<bigint> {
  readonly kind: ReservedKind
}

/** The properties of the hardware that clients of iommufd can see. */
export interface IommuModel {
  /**
   * Whether it keeps dirty bits. on-demand: once tracking is set on a domain (Intel, AMD). always:
   * from when a domain that was made for it is attached, and setting changes nothing (SMMUv3).
   */
  readonly dirtyTracking?: 'on-demand' | 'always'
  /** Whether its driver makes a domain of VFIO_TYPE1_NESTING_IOMMU: SMMUv3, before 6.13. */
  readonly takesNestingType?: boolean
  /** Whether a guest's own tables can stand before the host's. */
  readonly canNest?: boolean
  /** Present for Intel VT-d: the registers that IOMMU_GET_HW_INFO shows. */
  readonly vtd?: {
    readonly capability: bigint
    readonly extendedCapability: bigint
    /** IOMMU_HW_INFO_VTD_ERRATA_*. */
    readonly errata: number
  }
  /** False where a write of a device could be anyone's interrupt: no interrupt remapping. */
  readonly isolatesInterrupts?: boolean
}

export interface IommuSpec {
  /** One bit per page size that the IOMMU can map. */
  readonly pageSizes: bigint
  readonly aperture: Range<bigint>
  /** What CHECK_EXTENSION(VFIO_DMA_CC_IOMMU) says once a group is attached. */
  readonly isCacheCoherent: boolean
  readonly model?: IommuModel
}

export interface GroupSpec {
  readonly id: number
  readonly reserved: readonly ReservedRegion[]
  /** Where it differs from the machine's. */
  readonly iommu?: IommuSpec
  /** No IOMMU is before its one function: vfio makes the group while it has that, if it may. */
  readonly isNoIommu?: boolean
}

export const BAR_KINDS = ['memory', 'memory64', 'io'] as const

export interface BarSpec {
  /** 0 to 5; a memory64 BAR takes the next one as well. */
  readonly index: number
  /** A power of two. */
  readonly size: bigint
  readonly kind: (typeof BAR_KINDS)[number]
}

export const DMA_PATTERNS = ['sequential', 'random', 'hot'] as const

/** What a vendor-like device writes while time goes on, once it masters the bus. */
export interface WorkloadSpec {
  readonly range: Range<bigint>
  readonly pagesPerStep: number
  readonly pattern: (typeof DMA_PATTERNS)[number]
}

/** The internal state of a vendor-like device. */
export interface StateSpec {
  readonly bytes: bigint
  /** What has to be sent first for pre-copy to make sense. */
  readonly initialBytes: bigint
  /** Pages of the state that change while the device runs. */
  readonly dirtyPagesPerStep: number
}

/** In which order several bits of a v1 device_state take effect: it was never agreed. */
export const V1_ORDERS = ['rfc-v2', 'rfc-v3', 'dec13'] as const
export type V1Order = (typeof V1_ORDERS)[number]

/** SR-IOV: the virtual functions that a physical one can have. */
export interface SriovSpec {
  readonly totalVfs: number
  /** How many there are at the start; its driver makes them. */
  readonly numVfs: number
  /** From its routing id to that of the first, and from each to the next. */
  readonly offset: number
  readonly stride: number
  /** The IOMMU group of the first; the others have those that follow. */
  readonly firstGroup: number
  readonly vf: Omit<FunctionSpec, 'address' | 'group' | 'sriov' | 'parent'>
}

export interface FunctionSpec extends HostParts {
  /** `0000:00:04.0` */
  readonly address: string
  readonly kind: FunctionKind
  readonly group: number
  readonly vendor: number
  readonly device: number
  readonly subsystemVendor: number
  readonly subsystemDevice: number
  /** The 24 bits that sysfs shows as `class`. */
  readonly classCode: number
  readonly revision: number
  readonly bars: readonly BarSpec[]
  /** Whether there is an INTx pin. */
  readonly hasIntx: boolean
  /** Vectors; 0 for no such capability. */
  readonly msiVectors: number
  readonly msixVectors: number
  /** How many MSI or MSI-X vectors the host has left for it; undefined is enough for all. */
  readonly hostVectors?: number | undefined
  readonly isPcie: boolean
  /** A bridge has a type 1 header, and vfio-pci does not take it. */
  readonly isBridge: boolean
  /** Whether the function can be reset on its own, so that VFIO_DEVICE_RESET has a way. */
  readonly hasReset: boolean
  /** False for hardware that is put into its slot later; undefined is true. */
  readonly isPlugged?: boolean
  /** The address of the bridge above, whose secondary bus can then be reset as a whole. */
  readonly parent?: string
  /** The driver of `drivers` that knows this device; it takes it unless driver_override says no. */
  readonly nativeDriver?: string
  /** The driver that has it when the machine starts. */
  readonly boundDriver?: string
  /** Present for a physical function. */
  readonly sriov?: SriovSpec
  /** Of vendor-like kinds only, as the two below. */
  readonly state?: StateSpec
  readonly workload?: WorkloadSpec
  readonly v1Order?: V1Order
}

/** mtty: the sample serial port of the kernel. pinning: it pins what its client names. */
export const MDEV_KINDS = ['mtty', 'pinning'] as const

export interface MdevTypeSpec {
  /** `mtty-2` */
  readonly id: string
  /** `Dual port serial` */
  readonly name: string
  /** How much of the parent's pool one instance takes. */
  readonly ports: 1 | 2
}

export interface MdevParentSpec {
  /** The name in /sys/class/mdev_bus. */
  readonly name: string
  readonly kind: (typeof MDEV_KINDS)[number]
  readonly types: readonly MdevTypeSpec[]
  readonly poolPorts: number
}

/** A mediated device that exists when the machine starts. */
export interface MdevSpec {
  readonly uuid: string
  readonly parent: string
  readonly type: string
}

/**
 * Who stands behind /dev/vfio/vfio. type1: vfio with vfio_iommu_type1. iommufd: its container
 * compatibility (CONFIG_IOMMUFD_VFIO_CONTAINER). none: a kernel with neither, so there is no node.
 */
export const VFIO_CONTAINERS = ['type1', 'iommufd', 'none'] as const
export type VfioContainer = (typeof VFIO_CONTAINERS)[number]

/** When devices do what they do on their own: soon, or when they are told to. */
export const TIMES = ['auto', 'poked'] as const

/** A device that is on neither of the other buses, and a member of a group. */
export interface PlatformDeviceSpec {
  /** `MSFT0201:00` */
  readonly name: string
  readonly group: number
  /** That has it at the start. */
  readonly driver?: string | undefined
}

/** An id that a driver was given besides those that it knows: `ids` of vfio-pci, or new_id. */
export interface DynamicIdSpec {
  readonly driver: string
  readonly vendor: number
  readonly device: number
}

export interface MachineSpec {
  /** Decides where kernels differ: `6.12`. */
  readonly kernelVersion: string
  readonly iommu: IommuSpec
  /** Memory of the host. */
  readonly memoryBytes: bigint
  /** RLIMIT_MEMLOCK of the calling process; null when it has CAP_IPC_LOCK. */
  readonly memlockBytes: bigint | null
  /** `type1` where nothing is said. */
  readonly vfioContainer?: VfioContainer
  /** Mappings per container, the module parameter of vfio_iommu_type1. */
  readonly dmaEntryLimit: number
  /** Whether groups whose interrupts are not isolated are taken; false where nothing is said. */
  readonly allowsUnsafeInterrupts?: boolean
  /** Whether vfio takes functions without an IOMMU; false where nothing is said. */
  readonly enablesNoIommu?: boolean
  /** Whether vfio-pci makes virtual functions; false where nothing is said. */
  readonly enablesSriov?: boolean
  /** What the host uses of its disks; nothing where nothing is said. */
  readonly host?: HostSpec
  /** PCI drivers that are loaded. */
  readonly drivers: readonly string[]
  readonly groups: readonly GroupSpec[]
  readonly functions: readonly FunctionSpec[]
  readonly dynamicIds?: readonly DynamicIdSpec[]
  readonly platformDevices?: readonly PlatformDeviceSpec[]
  readonly mdevParents: readonly MdevParentSpec[]
  readonly mdevs: readonly MdevSpec[]
  /** For who runs the machine; `auto` where nothing is said. */
  readonly time?: (typeof TIMES)[number]
  /** What goes wrong from the start. */
  readonly faults?: readonly FaultSpec[]
}
