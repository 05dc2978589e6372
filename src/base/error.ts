/**
 * The one error that vfiod throws above the byte-level port, and the closed list of its reasons.
 *
 * A reason is for machines and never changes its meaning; the message is for people, in the form
 * `Cannot <verb> <object>: <state found>; <state needed or what to do>`. There is no `code`
 * property on purpose: grpc-js takes a numeric `code` on a thrown error as the gRPC status.
 */

/** Every reason, and what the caller should do about it. the README is held equal to this. */
export const REASONS = {
  BAD_ARGUMENT: 'Correct the named field; nothing was changed.',
  BAD_RANGE:
    'Align address and length to the page size reported by the address space, keep them above zero and below 2^64.',
  BATCH_TOO_LARGE: 'Split the batch; the message names the limit.',
  IOVA_OUT_OF_APERTURE: 'Choose an iova inside one of the ranges that the address space reports.',
  OUT_OF_MEMORY_OBJECT: 'Keep offset + length inside the registered memory.',
  OUT_OF_REGION: 'Keep offset + length inside the region; its size is in the device information.',
  NO_SUCH_GROUP: 'List the groups; the id is the IOMMU group number.',
  NO_SUCH_DEVICE: 'List the devices; the name is a PCI address or an mdev UUID.',
  NO_SUCH_DRIVER:
    'Load the named driver or module first (for example vfio-pci), then repeat the call.',
  NO_SUCH_SPACE: 'Create the address space first; it is gone when its owner exits.',
  NO_SUCH_MEMORY: 'Register or allocate the memory first.',
  NO_SUCH_REGION: 'Use a region index from the device information.',
  NO_SUCH_IRQ: 'Use an IRQ index and vector from the device information.',
  NO_SUCH_SESSION: 'Set a state that opens a data transfer session first.',
  IOVA_NOT_MAPPED: 'List the mappings; name one of them exactly.',
  IOVA_IN_USE: 'Unmap the named mapping first, or choose another iova.',
  ID_IN_USE: 'Choose another id, or repeat the call with the arguments of the existing object.',
  TRACKING_STARTED:
    'Stop the tracking first, or repeat the call with the arguments it was started with.',
  UNKNOWN_PEER:
    'Call from a live process that the daemon can see and look at; the message says what is in the way.',
  PEER_NOT_CHECKED:
    'Repeat the call: the daemon could not check the calling process, and released nothing.',
  HELPER_UNAVAILABLE:
    'Repeat the call in a moment: a helper process of the daemon does not answer; the message names it, and nothing was released.',
  RELEASING: 'Repeat the call in a moment: what the caller owned before is still being released.',
  NOT_MM_OWNER: 'Make the call from the process that owns the object.',
  ROLE_NEEDED: 'Ask an administrator for a rule in the policy that grants the named role.',
  DEVICE_NOT_ALLOWED: 'Ask an administrator for a rule in the policy that allows the device.',
  KERNEL_DENIED: 'Give the daemon the named capability or permission.',
  NODE_MISSING:
    'Make the named node visible to the daemon: pass it into its container, or see to udev.',
  VF_TOKEN_NEEDED:
    'Open it with the vf_token with which the physical function was opened; the message says which function that is.',
  BAD_TICKET:
    'Ask for a new ticket; each one works once, for the process that asked, until it expires.',
  GROUP_NOT_VIABLE: 'Bind every named device to vfio-pci, or leave it without a driver.',
  FIRMWARE_REGION:
    'Use another device: the firmware demands a 1:1 mapping for one of the group; a firmware setting or the vendor may lift that.',
  INTERRUPTS_NOT_ISOLATED:
    'Switch on interrupt remapping, or set allow_unsafe_interrupts and accept that devices can forge interrupts of the host.',
  IOMMU_TOO_NARROW: 'Unmap the named mappings, or add the group to another address space.',
  GROUP_IN_USE:
    'Release the group where it is used; the message names the holder when it is known.',
  SPACE_NOT_READY: 'Add a group, or make the named groups viable; then repeat the call.',
  SPACE_IN_USE: 'Close the named devices first.',
  MEMORY_IN_USE: 'Unmap the named mappings first.',
  DEVICE_NOT_OPEN: 'Open the device in an address space first.',
  RESET_BLOCKED:
    'Free the named devices, or bind them to vfio-pci: the reset of the bus would hit them too.',
  KERNEL_NOT_DONE:
    'Check again later: the kernel is still working on the named step; other work is not delayed.',
  DEVICE_ASLEEP: 'Wake the device: write D0 to its PMCSR, reset it, or see power/control in sysfs.',
  DECODING_OFF: 'Switch decoding on in the COMMAND register of the device, then repeat the call.',
  REGION_CLAIMED: 'Make the named driver of the kernel let go of the region.',
  DEVICE_IN_USE: 'Close the device first; the message names the holder.',
  HOST_USES_DEVICE:
    'Make the host let go of the device as the blockers say, or repeat the call with force.',
  MAPPING_STRADDLES: 'Unmap whole mappings: widen or narrow the range to their edges.',
  TRACKING_STOPPED: 'Start tracking first, and treat every page as written until then.',
  REMAP_BLOCKED:
    'Stop the device and unmap and map again instead; the message names what rules out a remap.',
  VADDR_INVALID: 'Update the vaddr of the named mappings first.',
  VADDR_VALID: 'Invalidate the vaddr of the mapping before updating it.',
  DIFFERENT_MEMORY: 'Update a mapping with the same bytes of the same file only.',
  BIND_FAILED:
    'Nothing was changed: every device has its former driver; the message names the step that failed.',
  ARC_BLOCKED: 'Take the path that the message names, or reset the device.',
  DEVICE_IN_ERROR: 'Reset the device; nothing else leaves the ERROR state.',
  SESSION_BUSY: 'Wait for the other reader or writer of the session, or cancel it.',
  SESSION_BROKEN:
    'Reset the device and start the session again; do not load the bytes written so far.',
  MEMLOCK_EXCEEDED:
    'Raise RLIMIT_MEMLOCK of the daemon or give it CAP_IPC_LOCK; map less meanwhile.',
  MEMORY_NOT_PINNABLE:
    'Use memory that can be pinned: a memfd, or a file on tmpfs or hugetlbfs that is as long as the range.',
  TOO_MANY_MAPPINGS: 'Map fewer, larger ranges, or raise dma_entry_limit of vfio_iommu_type1.',
  LIMIT_REACHED: 'Release some of what the message names, or ask for less at a time.',
  UNSUPPORTED: 'Do without: the kernel, the device or this version of vfiod cannot do it.',
  DEVICE_GONE: 'Close the device; it was removed or no longer answers.',
  DRAINING: 'Reconnect when the daemon has restarted.',
  CANCELLED: 'Repeat the call if it is still wanted.',
  STATE_REFUSED_BY_DEVICE:
    'Reset the device; the data it was given does not fit it or is incomplete.',
  KERNEL_REFUSED:
    'Find out which of the causes in the message it is; where it names none, the answer is unexpected: see the kernel log, and report it.',
  BUG: 'Report it with the daemon log: this is a bug in vfiod.',
} as const satisfies Record<string, string>

export type Reason = keyof typeof REASONS

/** One object that blocks a call, and how to remove it (google.rpc.PreconditionFailure). */
export interface Blocker {
  /** The object: a PCI address, an mdev UUID, a group, a mapping. */
  readonly subject: string
  /** Its state: `bound to snd_hda_intel`. */
  readonly found: string
  /** What to do: `bind it to vfio-pci or leave it without a driver`. */
  readonly fix: string
}

/** A limit that was hit (google.rpc.QuotaFailure); all three in the same unit. */
export interface LimitHit {
  readonly limit: string
  readonly max: bigint
  readonly current: bigint
  readonly needed: bigint
}

/** Who has the object that a call needs. */
export interface HolderDetail {
  /** The client, by the id that WhoAmI tells, and its address space; where a client of the daemon has it. */
  readonly client?: string
  readonly space?: string
  /** Processes outside the daemon, and the files by which they have it. */
  readonly pids?: readonly number[]
  readonly paths?: readonly string[]
}

export interface Details {
  /** The ioctl or verb that was tried, e.g. `VFIO_GROUP_SET_CONTAINER`. */
  readonly op?: string
  /** The name of the errno, when the kernel refused. */
  readonly errno?: string
  /** The causes that the errno can have here, by their names in docs/refusals.md; one, if it is known. */
  readonly causes?: readonly string[]
  readonly blockers?: readonly Blocker[]
  readonly quota?: LimitHit
  /** The request field at fault (google.rpc.BadRequest). */
  readonly field?: string
  /** The object at fault and who owns it (google.rpc.ResourceInfo). */
  readonly resource?: { readonly type: string; readonly name: string; readonly owner?: string }
  readonly holder?: HolderDetail
  /** The state that a device rests in after an arc that failed: `STOP_COPY`; `UNKNOWN` where it cannot be read. */
  readonly deviceState?: string
  readonly retryAfterMs?: number
}

export class VfiodError extends Error {
  override readonly name = 'VfiodError'
  readonly reason: Reason
  readonly details: Details

  constructor(reason: Reason, message: string, details: Details = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.reason = reason
    this.details = details
  }
}

/** A request field that is missing or malformed. */
export const badArgument = (field: string, message: string): VfiodError =>
  new VfiodError('BAD_ARGUMENT', message, { field })
