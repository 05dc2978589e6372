/**
 * Everything that can happen to the state, as plain values. A change says what has happened, never
 * what is wanted: the kernel has said yes by then. The same changes applied to an empty state, in
 * their order, give the same state.
 */

import type {
  ConditionKind,
  DeviceCondition,
  DeviceRecord,
  MappingRecord,
  MemberRecord,
  MemoryMapping,
  MemoryRecord,
  OfferRecord,
  OwnerRecord,
  SessionRecord,
  SpaceRecord,
  TrackingRecord,
} from './records.ts'

/** How many objects of each kind. */
export interface Counts {
  readonly spaces: number
  readonly memories: number
}

export type Change =
  | { readonly kind: 'space-created'; readonly space: SpaceRecord }
  /** Its devices, mappings, members and tracking are gone by then. */
  | { readonly kind: 'space-closed'; readonly spaceId: string }
  /** A group became a member, or was attached later. */
  | { readonly kind: 'member-set'; readonly member: MemberRecord }
  | { readonly kind: 'member-removed'; readonly spaceId: string; readonly group: number }
  /** The kernel took an attached group out: its last device left its VFIO driver, or is gone. */
  | {
      readonly kind: 'member-lost'
      readonly member: MemberRecord
      readonly owner: OwnerRecord
      /** Mappings that went with it, since no other group was attached. */
      readonly mappings: number
    }
  /** All that one call mapped. */
  | {
      readonly kind: 'mapped'
      readonly spaceId: string
      readonly mappings: readonly MappingRecord[]
    }
  | {
      readonly kind: 'unmapped'
      readonly spaceId: string
      readonly mappings: readonly MappingRecord[]
    }
  /** The same ranges have another vaddr, another memory, or an invalid vaddr. */
  | {
      readonly kind: 'remapped'
      readonly spaceId: string
      readonly mappings: readonly {
        readonly before: MemoryMapping
        readonly after: MemoryMapping
      }[]
    }
  /** Mappings of the regions of a device were removed before it stopped decoding; `unmapped` came before. */
  | {
      readonly kind: 'regions-unmapped'
      readonly device: DeviceRecord
      readonly owner: OwnerRecord
      readonly mappings: number
      /** What was about to happen to the device, to follow "because": `it is reset`. */
      readonly why: string
    }
  | { readonly kind: 'memory-added'; readonly memory: MemoryRecord }
  | { readonly kind: 'memory-released'; readonly memoryId: string }
  | { readonly kind: 'device-opened'; readonly device: DeviceRecord }
  /** It was reset as it was closed, or else is as its user left it. */
  | { readonly kind: 'device-closed'; readonly name: string; readonly isReset: boolean }
  /** Devices were reset with their bus. Those that are open are in use again. */
  | { readonly kind: 'devices-reset'; readonly devices: readonly string[] }
  /** The host wants an open device back, or it is in error, or lost. */
  | {
      readonly kind: 'condition-set'
      readonly device: DeviceRecord
      readonly owner: OwnerRecord
      readonly condition: DeviceCondition
    }
  | {
      readonly kind: 'condition-cleared'
      readonly name: string
      readonly condition: ConditionKind
    }
  /** The daemon closed a device that its owner did not give back; a change that says so came before. */
  | {
      readonly kind: 'device-taken'
      readonly device: DeviceRecord
      readonly owner: OwnerRecord
      readonly why: string
    }
  | { readonly kind: 'session-opened'; readonly session: SessionRecord }
  | { readonly kind: 'session-ended'; readonly device: string }
  | { readonly kind: 'tracking-started'; readonly tracking: TrackingRecord }
  | { readonly kind: 'tracking-stopped'; readonly spaceId: string }
  /** An fd of a device of the group went to a client: while it is open, the kernel keeps the group. */
  | { readonly kind: 'device-exported'; readonly group: number; readonly what: string }
  /** The group could be opened again, so every exported fd of it is closed. */
  | { readonly kind: 'exports-closed'; readonly group: number }
  | { readonly kind: 'handover-offered'; readonly offer: OfferRecord; readonly counts: Counts }
  /** The owner is gone; what it offered waits for its token. */
  | { readonly kind: 'owner-gone'; readonly offer: OfferRecord }
  /** The owner that was gone is there again; its offer stands. */
  | { readonly kind: 'owner-returned'; readonly offer: OfferRecord }
  | {
      readonly kind: 'handover-expired'
      readonly owner: OwnerRecord
      readonly why: string
      readonly counts: Counts
    }
  /** Everything that one client owned belongs to another. */
  | {
      readonly kind: 'adopted'
      readonly from: OwnerRecord
      readonly to: OwnerRecord
      readonly spaceIds: readonly string[]
      readonly memoryIds: readonly string[]
    }
  /** The objects of a client are gone; a change for each came before. */
  | {
      readonly kind: 'released'
      readonly owner: OwnerRecord
      readonly why: string
      readonly counts: Counts
    }
  | { readonly kind: 'lease-expired'; readonly owner: OwnerRecord; readonly counts: Counts }
  /** Vaddrs were not updated in time and have their former memory again; `failed` could not be restored. */
  | {
      readonly kind: 'vaddr-restored'
      readonly spaceId: string
      readonly owner: OwnerRecord
      readonly restored: number
      readonly failed: number
    }
  /** Devices have other drivers. */
  | { readonly kind: 'drivers-changed'; readonly devices: readonly string[] }
