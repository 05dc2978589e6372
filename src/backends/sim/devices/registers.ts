/** What stands behind the BARs of a function, and how it speaks back: interrupts and DMA. */

import type { MapRequest } from '../../../kernel/port.ts'
import type { Segment } from '../../../os/memory.ts'

export interface Registers {
  /** Fills `into` from a BAR: one access of 1, 2, 4 or 8 bytes, aligned to its width. */
  read(bar: number, offset: number, into: Uint8Array): void
  write(bar: number, offset: number, from: Uint8Array): void
  /** They are replaced by those of a reset function: nothing that they began goes on. */
  stop?(): void
  /** Maps whole pages of a BAR; absent where memory cannot show what the registers do. */
  map?(bar: number, request: MapRequest): Promise<Segment | number> | number
}

/** The function as its registers see it. */
export interface RegisterBus {
  /** The level of the INTx pin. */
  setIntx(isRaised: boolean): void
  /** Sends a message; nothing happens unless MSI is enabled. */
  sendMsi(vector: number): void
  readonly isMsiEnabled: boolean
  /** Reads memory at an iova: false, and zeros, where the IOMMU or the bus master bit stops it, or
   * the memory is gone. */
  dmaRead(iova: bigint, into: Uint8Array): boolean
  /** Writes memory at an iova: false, and nothing is written, where it is stopped; what is behind a
   * page that is gone is not written either. */
  dmaWrite(iova: bigint, from: Uint8Array): boolean
  /** Does something later, on the device's own time. */
  later(action: () => void): void
}
