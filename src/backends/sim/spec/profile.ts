/**
 * Device profiles: what a function of each vendor-like kind can do, as data. Each names where its
 * behaviour comes from: a driver of Linux 6.12, or a document that says that a device may do so.
 */

import {
  VFIO_MIGRATION_P2P,
  VFIO_MIGRATION_PRE_COPY,
  VFIO_MIGRATION_STOP_COPY,
} from '../../../abi/mig-v2.ts'
import { ERRNO } from '../../../base/errno.ts'
import type { VendorKind } from './machine-spec.ts'

/** Migration by VFIO_DEVICE_FEATURE. */
export interface V2Profile {
  /** VFIO_MIGRATION_*. */
  readonly flags: number
  /** What can be read before the device stops: all of the state, what identifies it, or nothing. */
  readonly preCopy: 'state' | 'match' | 'none'
  /** What a read in PRE_COPY answers when there is nothing now. */
  readonly whenEmpty: number
  /** Whether PRECOPY_INFO is answered in PRE_COPY_P2P as well. */
  readonly infoInP2p: boolean
  /** Whether a wrong stream is refused by the write that completes a record, or when loading it. */
  readonly checks: 'at-write' | 'at-load'
  /** What a failed arc leaves: the old state, or ERROR and EIO until a reset. */
  readonly onFailure: 'stays' | 'error'
}

export interface Profile {
  readonly ids: { readonly vendor: number; readonly device: number }
  readonly v2?: V2Profile
  /** DMA logging: what a second START answers. */
  readonly dmaLogging?: { readonly startedAgain: number }
  /** Migration through a region. */
  readonly v1?: { readonly hasNdma: boolean; readonly mapsData: boolean }
  /** Any access to its registers starts its queue again. */
  readonly restartsOnTouch?: true
  /** Writes where its registers tell it to, as a device that an attacker programmed. */
  readonly obeysAnyone?: true
}

export const PROFILES: Readonly<Record<VendorKind, Profile>> = {
  /**
   * drivers/vfio/pci/mlx5: STOP_COPY and P2P, PRE_COPY where the firmware has it, ENOMSG at the
   * temporary end, records with a header inside the stream, tracking of the device's writes.
   */
  'mlx5-like': {
    ids: { vendor: 0x15b3, device: 0x101e },
    v2: {
      flags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
      preCopy: 'state',
      whenEmpty: -ERRNO.ENOMSG,
      infoInP2p: true,
      checks: 'at-write',
      onFailure: 'stays',
    },
    dmaLogging: { startedAgain: -ERRNO.EINVAL },
  },
  /**
   * drivers/vfio/pci/hisilicon: PRE_COPY carries only what tells whether source and target match,
   * which the target checks as soon as it has it; no P2P; 0 where others say ENOMSG.
   */
  'hisilicon-like': {
    ids: { vendor: 0x19e5, device: 0xa251 },
    v2: {
      flags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY,
      preCopy: 'match',
      whenEmpty: 0,
      infoInP2p: false,
      checks: 'at-load',
      onFailure: 'stays',
    },
  },
  /**
   * drivers/vfio/pci/pds: no PRE_COPY; the only driver that enters ERROR, where it answers EIO
   * until it is reset. vfio.h: struct vfio_device_feature_mig_state.
   */
  'pds-like': {
    ids: { vendor: 0x1dd8, device: 0x1003 },
    v2: {
      flags: VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P,
      preCopy: 'none',
      whenEmpty: 0,
      infoInP2p: false,
      checks: 'at-load',
      onFailure: 'error',
    },
    dmaLogging: { startedAgain: -ERRNO.EEXIST },
  },
  /** The list's documentation of the migration region (2021) with the NDMA bit it proposed. */
  'v1-ndma': { ids: { vendor: 0x1af4, device: 0x11f1 }, v1: { hasNdma: true, mapsData: true } },
  /**
   * The same documents: NDMA is optional, because a device may exist (hns is named) whose queue
   * starts again with any access to its registers, so that nothing can hold its DMA back.
   */
  'v1-queue': {
    ids: { vendor: 0x1af4, device: 0x11f2 },
    v1: { hasNdma: false, mapsData: false },
    restartsOnTouch: true,
  },
  /** The same documents: registers within reach of a peer's DMA are within reach of its owner. */
  hostile: { ids: { vendor: 0x1af4, device: 0x11f3 }, obeysAnyone: true },
}
