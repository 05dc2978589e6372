/** An mm_struct: the memory map of a process, which pinned pages are charged to. */

export class Mm {
  /** VmLck, in pages. Invariant: the sum over the charged mappings it owns. */
  lockedPages = 0n
  /** RLIMIT_MEMLOCK; null with CAP_IPC_LOCK, when no limit counts. */
  readonly memlockBytes: bigint | null

  constructor(memlockBytes: bigint | null) {
    this.memlockBytes = memlockBytes
  }
}
