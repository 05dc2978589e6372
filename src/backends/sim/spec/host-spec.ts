/** What the host has below the functions of a simulated machine, and what it uses of that. */

/** A disk, there while a driver of the host has the function. */
export interface DiskSpec {
  /** `nvme0n1` */
  readonly name: string
  /** The folder of the disk, below that of the function: `nvme/nvme0`. */
  readonly path: string
  /** `nvme0n1p1` */
  readonly partitions: readonly string[]
}

export interface InterfaceSpec {
  /** `eth0` */
  readonly name: string
  /** The folder of the interface, below that of the function: `virtio0/net`. */
  readonly path: string
  readonly isUp: boolean
  /** With the bits of their networks: `10.0.0.2/24`, `2001:db8::2/64`. */
  readonly addresses: readonly string[]
  readonly hasDefaultRoute: boolean
  /** The bond or bridge that it is a member of. */
  readonly master?: string | undefined
  /** Whether it is in another network namespace than process 1. */
  readonly isElsewhere: boolean
}

/** What stands on disks: a volume, an array, an encrypted disk. */
export interface VolumeSpec {
  /** `dm-0` or `md0` */
  readonly name: string
  /** The name of a dm device: `vg-root`. */
  readonly label?: string | undefined
  /** Disks, partitions and other volumes. */
  readonly on: readonly string[]
}

export interface MountSpec {
  /** A disk, partition or volume. */
  readonly device: string
  readonly point: string
  readonly type: string
}

export interface HostSpec {
  readonly volumes: readonly VolumeSpec[]
  readonly mounts: readonly MountSpec[]
  /** Disks, partitions or volumes. */
  readonly swaps: readonly string[]
}

/** What a function has below it. */
export interface HostParts {
  readonly disks?: readonly DiskSpec[]
  readonly interfaces?: readonly InterfaceSpec[]
  /** Where the console of the host is: `fb0`, `ttyS4`. */
  readonly consoles?: readonly string[]
}
