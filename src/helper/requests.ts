/**
 * What the daemon may ask of its helpers, and nothing else: looks at processes and at the host, and
 * writes to sysfs. A request is JSON of exactly these shapes; the helpers check it as if a stranger had sent
 * it. It has names, never a path.
 */

export type LookRequest =
  /** With the pidfd of a process: pins its address space. */
  | { readonly look: 'pin' }
  /** With a pidfd: which image the process runs now. */
  | { readonly look: 'image' }
  /** With two pidfds: whether the processes share an address space. */
  | { readonly look: 'same-mm' }
  | { readonly look: 'vfio-holders' }
  /** PCI addresses. */
  | { readonly look: 'host-facts'; readonly functions: readonly string[] }

/** sysfs-bus-pci: the files of these names. */
export type WriteRequest =
  /** The only driver that may bind; null for the usual rules. */
  | { readonly write: 'driver_override'; readonly device: string; readonly driver: string | null }
  | { readonly write: 'unbind'; readonly device: string; readonly driver: string }
  | { readonly write: 'drivers_probe'; readonly device: string }
  | { readonly write: 'sriov_numvfs'; readonly device: string; readonly count: number }

/** What a helper serves: one process has one of the two. */
export type Serves = 'looks' | 'writes'

/** How many fds come with a look. */
export const FDS_OF: Readonly<Record<LookRequest['look'], number>> = {
  pin: 1,
  image: 1,
  'same-mm': 2,
  'vfio-holders': 0,
  'host-facts': 0,
}

/** So many addresses fit into a packet. */
export const FUNCTIONS_MAX = 3500
/** sysfs-bus-pci: the field of SR-IOV that it comes from has 16 bits. */
const COUNT_MAX = 65_535

const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/
/** A name in /sys/bus/pci/drivers: a few have spaces or dots. */
const DRIVER = /^(?!\.{1,2}$)[ -.0-~]{1,64}$/

const isAddress = (value: unknown): value is string =>
  typeof value === 'string' && PCI_ADDRESS.test(value)

const isDriver = (value: unknown): value is string =>
  typeof value === 'string' && DRIVER.test(value)

const isCount = (value: unknown): value is number =>
  Number.isInteger(value) && Number(value) >= 0 && Number(value) <= COUNT_MAX

type Checks = Readonly<Record<string, (value: unknown) => boolean>>

const LOOKS: Readonly<Record<LookRequest['look'], Checks>> = {
  pin: {},
  image: {},
  'same-mm': {},
  'vfio-holders': {},
  'host-facts': {
    functions: (value) =>
      Array.isArray(value) && value.length <= FUNCTIONS_MAX && value.every(isAddress),
  },
}

const WRITES: Readonly<Record<WriteRequest['write'], Checks>> = {
  driver_override: { device: isAddress, driver: (value) => value === null || isDriver(value) },
  unbind: { device: isAddress, driver: isDriver },
  drivers_probe: { device: isAddress },
  sriov_numvfs: { device: isAddress, count: isCount },
}

/** The fields are those of the table, each as its check wants it. */
const matches = (
  table: Readonly<Record<string, Checks>>,
  key: 'look' | 'write',
  value: unknown,
): boolean => {
  if (typeof value !== 'object' || value === null) return false
  const { [key]: kind, ...fields } = value as Record<string, unknown>
  if (typeof kind !== 'string' || !Object.hasOwn(table, kind)) return false
  const checks = Object.entries(table[kind] ?? {})
  return (
    Object.keys(fields).length === checks.length &&
    checks.every(([name, check]) => Object.hasOwn(fields, name) && check(fields[name]))
  )
}

export const isLook = (value: unknown): value is LookRequest => matches(LOOKS, 'look', value)

export const isWrite = (value: unknown): value is WriteRequest => matches(WRITES, 'write', value)
