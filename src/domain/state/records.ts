/**
 * What is true, as plain values: each can be written down and read back. Records name each other by
 * id and hold no live object; fds, mmaps and lanes live beside them, in maps by the same ids.
 */

import type { Blocker } from '../../base/error.ts'
import type { Access, IovaRange } from '../../base/units.ts'

/** Where a client calls from: a process of this host, or another host by the name in its certificate. */
export type Origin =
  | {
      readonly kind: 'process'
      readonly pid: number
      readonly uid: number
      readonly gid: number
      /** Supplementary groups. */
      readonly groups: readonly number[]
      /** The command name of the process when it connected. */
      readonly command: string
    }
  | { readonly kind: 'remote'; readonly name: string }

/** Who owns an object: enough to charge the owner, and to name it when it is no longer there. */
export interface OwnerRecord {
  /** The id of the client. */
  readonly id: string
  /** Whose quota it uses: `uid 1000`, or `remote NAME`. */
  readonly identity: string
  /** Whose quotas it counts against: its identity, unless a rule of the policy says another. */
  readonly account: string
  readonly origin: Origin
}

export interface SpaceRecord {
  readonly id: string
  readonly owner: OwnerRecord
}

/** A member group of an address space. */
export interface MemberRecord {
  readonly spaceId: string
  readonly group: number
  /** Whether the IOMMU serves it, so that the kernel pins mapped pages. Drivers of mdevs pin later. */
  readonly pins: boolean
  /** Whether the kernel has it in the space; false until the group is viable. */
  readonly isAttached: boolean
}

/** A mapping of memory. */
export interface MemoryMapping extends IovaRange {
  readonly memoryId: string
  /** Where in the memory it starts, in bytes. */
  readonly offset: bigint
  readonly access: Access
  /** Which mmap of the memory gave it its vaddr. */
  readonly windowId: number
  /** The device goes on with DMA while it is invalid. */
  readonly isVaddrValid: boolean
}

/** A mapping of a part of a device, for the DMA of its peers: no memory stands behind it. */
export interface RegionMapping extends IovaRange {
  /** Open in the same address space for as long as the mapping is there. */
  readonly device: string
  readonly region: number
  /** Where in the region it starts, in bytes. */
  readonly offset: bigint
  readonly access: Access
}

/** One mapping of an address space. */
export type MappingRecord = MemoryMapping | RegionMapping

export const isOfMemory = (mapping: MappingRecord): mapping is MemoryMapping =>
  'memoryId' in mapping

export const isOfRegion = (mapping: MappingRecord): mapping is RegionMapping => 'device' in mapping

export type HugePage = '2M' | '1G'

/** Memory that a client registered, or had allocated. */
export interface MemoryRecord {
  readonly id: string
  readonly owner: OwnerRecord
  /** Bytes. */
  readonly length: bigint
  /** Bytes of a page of the file: `length` is a multiple of it. */
  readonly pageSize: bigint
  readonly isAllocated: boolean
  readonly isSealed: boolean
  readonly file: { readonly dev: bigint; readonly inode: bigint }
  /** How it was allocated; a repeated call with the same arguments gets the same memory. */
  readonly hugePage: HugePage | undefined
}

/** What the host says of an open device, or what was found: it wants it back, it has failed, it is gone. */
export type ConditionKind = 'requested' | 'error' | 'lost'

export interface DeviceCondition {
  readonly kind: ConditionKind
  /** Milliseconds since 1970. */
  readonly since: number
  /** When the daemon closes the device, unless its owner does before; undefined for never. */
  readonly closesAt?: number
}

/** How a device was reset as it was opened. */
export interface OpeningReset {
  /** Not at all, by itself, or with its bus. */
  readonly kind: 'none' | 'function' | 'hot'
  /** Why not at all; empty where it was reset. */
  readonly why: string
  /** What kept its bus from being reset. */
  readonly blockers: readonly Blocker[]
  /** Who had used it since its last reset, as far as the daemon knows. */
  readonly lastUser?: OwnerRecord
}

/** An open device. */
export interface DeviceRecord {
  readonly name: string
  readonly group: number
  readonly spaceId: string
  /** At most one of a kind; they last until the device is closed, an error until it is reset. */
  readonly conditions: readonly DeviceCondition[]
  readonly reset: OpeningReset
}

/** The data transfer session of a device. */
export interface SessionRecord {
  readonly device: string
  /** Counts the sessions of the open device. */
  readonly id: number
  /** Saving, or else resuming. */
  readonly isSaving: boolean
}

/** Dirty tracking of an address space. */
export interface TrackingRecord {
  readonly spaceId: string
  /** Whether the container tracks. */
  readonly isIommu: boolean
  /** Devices that log their own DMA, by name. */
  readonly devices: readonly string[]
}

/** A handover that was offered and not taken yet. */
export interface OfferRecord {
  readonly owner: OwnerRecord
  readonly deadlineMs: number
  /** When it expires, in milliseconds since 1970; a late event loop puts it off. */
  readonly expiresAt: number
  /** Why the owner is gone, once it is: from then on only the token or an admin reaches the objects. */
  readonly gone?: string
}
