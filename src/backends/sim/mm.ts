/** An mm_struct: the memory map of a process, which pinned pages are charged to. */

/** All processes of one user: iommufd charges them together. */
export class User {
  lockedPages = 0n
}

export class Mm {
  /** VmLck, in pages. Invariant: the sum over the charged mappings it owns. */
  lockedPages = 0n
  /** RLIMIT_MEMLOCK; null with CAP_IPC_LOCK, when no limit counts. */
  readonly memlockBytes: bigint | null
  /** VmPin, in pages: what iommufd has pinned of it, whoever is charged. */
  pinnedPages = 0n
  readonly user: User
  /** Whether the process still runs. */
  isAlive = true

  constructor(memlockBytes: bigint | null, user = new User()) {
    this.memlockBytes = memlockBytes
    this.user = user
  }
}
