/** What this process may use: limits, capabilities, locked memory; and how malloc and V8 use it. */

import { setFlagsFromString } from 'node:v8'
import { bind, call } from './async-call.ts'
import { readProc } from './process.ts'

const getrlimit = bind('getrlimit', 'int', ['int', 'void *'])
const setrlimit = bind('setrlimit', 'int', ['int', 'void *'])

const RESOURCES = { data: 2, nofile: 7, memlock: 8 } as const
export type ResourceName = keyof typeof RESOURCES

export interface ResourceLimit {
  /** The soft limit, which is enforced. RLIM_INFINITY for none. */
  readonly current: bigint
  /** The hard limit: how far `current` can be raised without CAP_SYS_RESOURCE. */
  readonly max: bigint
}

export const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn

export const rlimit = (name: ResourceName): ResourceLimit | number => {
  const words = new BigUint64Array(2)
  const answer = call(getrlimit, RESOURCES[name], new Uint8Array(words.buffer))
  const [current, max] = words as unknown as [bigint, bigint]
  return answer < 0 ? answer : { current, max }
}

export const setRlimit = (name: ResourceName, { current, max }: ResourceLimit): number =>
  call(setrlimit, RESOURCES[name], new Uint8Array(new BigUint64Array([current, max]).buffer))

/** capability.h; the ones that matter to a VFIO daemon. */
const CAPABILITIES = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_FOWNER: 3,
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  CAP_IPC_LOCK: 14,
  CAP_SYS_MODULE: 16,
  CAP_SYS_RAWIO: 17,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
} as const
export type CapabilityName = keyof typeof CAPABILITIES

const statusField = (name: string): string => {
  const status = readProc('/proc/self/status')
  if (typeof status === 'number') return ''
  return new RegExp(`^${name}:\\s*(\\w+)`, 'm').exec(status)?.[1] ?? ''
}

/** Whether the effective set holds it; false where /proc cannot be read. */
export const hasCapability = (name: CapabilityName): boolean => {
  const effective = BigInt(`0x${statusField('CapEff') || '0'}`)
  return ((effective >> BigInt(CAPABILITIES[name])) & 1n) === 1n
}

/** VmLck: the bytes counted against RLIMIT_MEMLOCK, which type1 mappings add to. */
export const lockedBytes = (): bigint => BigInt(statusField('VmLck') || 0) * 1024n

const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3

/** Lets freed chunk buffers be reused instead of unmapped and faulted in again: a quarter more
 * throughput for streams of 1 MiB messages. False where libc has no mallopt (musl). */
export const tuneMalloc = (): boolean => {
  try {
    const mallopt = bind('mallopt', 'int', ['int', 'int'])
    return (
      call(mallopt, M_MMAP_THRESHOLD, 2 ** 25) === 1 &&
      call(mallopt, M_TRIM_THRESHOLD, 2 ** 29) === 1
    )
  } catch {
    return false
  }
}

/**
 * Collects garbage in one go. What streams leave behind lies outside of V8's heap and makes V8 mark
 * that heap once per 32 MiB or so. Marked in steps beside the work, it takes longer than the work:
 * streams are half as fast, and other calls wait longer, than with pauses of some milliseconds.
 */
export const tuneCollector = (): void => setFlagsFromString('--no-incremental-marking')
