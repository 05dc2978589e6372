/**
 * What the daemon needs of a device in order to migrate it, whichever protocol the device speaks.
 *
 * Terms. A *state* and an *arc* are those of enum vfio_device_mig_state; a protocol with other names
 * answers to these. A *stream* carries the bytes of one data transfer session, opaque and in order.
 * Where a protocol cuts its transfers into pieces that the other side must write as they were
 * read, the pieces are marked inside the bytes: a file or another daemon carries them unseen.
 *
 * Errors are VfiodErrors. Calls on one device come one after another, except that a stream is read or
 * written while the driver is asked.
 */

import type { MigFeatures, MigState } from '../../rules/mig-arcs.ts'

/** What is left to read before the device is stopped, in bytes. */
export interface PrecopyBytes {
  /** Of the initial part; pre-copy is worth nothing without it. */
  readonly initialBytes: bigint
  /** Estimate of the changed bytes that can be read besides. */
  readonly dirtyBytes: bigint
}

/** The bytes of one session; SESSION_BROKEN once the device has left it. */
export interface StateStream {
  /**
   * Bytes of a saving device, as many as there are and `into` takes. 0 is none for the time being;
   * from a device that was in STOP_COPY before the call, 0 is the end.
   */
  read(into: Uint8Array): Promise<number>
  /** Give bytes to a resuming device; answers how many it took. They are loaded when it leaves RESUMING. */
  write(from: Uint8Array): Promise<number>
  /** Only in PRE_COPY and PRE_COPY_P2P. */
  precopy(): Promise<PrecopyBytes>
  /** Called once, with no other call under way. */
  close(): Promise<void>
}

export interface MigrationDriver {
  /** What the device can do besides STOP_COPY. */
  readonly features: MigFeatures
  /** Every state that can be set. */
  readonly states: readonly MigState[]
  /** The arcs to a state, as the states they lead to; null when there is no way. */
  path(from: MigState, to: MigState): readonly MigState[] | null
  /** The state the device is in, asked of the device. */
  state(): Promise<MigState>
  /**
   * Move the device along the path to a state. Answers the stream where an arc opened a session; a
   * stream that the device left is closed by its holder. On failure the device may be in another state
   * than before: read it.
   */
  set(to: MigState): Promise<StateStream | undefined>
  /** Bytes that STOP_COPY would yield if it were entered now; undefined where no one can tell. */
  estimate(): Promise<bigint | undefined>
}
