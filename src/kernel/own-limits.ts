/**
 * What the kernel lets this process pin, and of how much memory, asked through the port. A simulated
 * kernel has no files of this process: its answer to the call itself is then all there is.
 */
import { totalmem } from 'node:os'
import { VfiodError } from '../base/error.ts'
import type { Kernel } from './port.ts'

export interface Memlock {
  /** RLIMIT_MEMLOCK, in bytes. */
  readonly limit: bigint
  /** VmLck: the bytes pinned and locked already. */
  readonly locked: bigint
}

/** capability.h: CAP_IPC_LOCK; a process that has it is not limited. */
const CAP_IPC_LOCK = 14n

const textOf = async (kernel: Kernel, path: string): Promise<string> => {
  const bytes = await kernel.readFile(path)
  return typeof bytes === 'number' ? '' : new TextDecoder().decode(bytes)
}

/** Bytes of memory that the host has. */
export async function memoryOfHost(kernel: Kernel): Promise<bigint> {
  const kilobytes = find(await textOf(kernel, MEMINFO), /^MemTotal:\s*(\d+) kB/m)
  if (kilobytes !== undefined) return BigInt(kilobytes) * 1024n
  // A unit may hide the file (ProcSubset=pid); sysinfo(2) answers all the same.
  const bytes = totalmem()
  if (bytes > 0) return BigInt(bytes)
  throw new VfiodError(
    'KERNEL_REFUSED',
    `Cannot tell how much memory the host has: ${MEMINFO} has no MemTotal; mount /proc`,
  )
}

const MEMINFO = '/proc/meminfo'

const find = (text: string, pattern: RegExp): string | undefined => pattern.exec(text)?.[1]

/** `none` where nothing limits this process; undefined where it cannot be told. */
export async function memlockOf(kernel: Kernel): Promise<Memlock | 'none' | undefined> {
  const status = await textOf(kernel, '/proc/self/status')
  const capabilities = find(status, /^CapEff:\s*([0-9a-f]+)/m)
  const locked = find(status, /^VmLck:\s*(\d+) kB/m)
  if (capabilities === undefined || locked === undefined) return undefined
  if (((BigInt(`0x${capabilities}`) >> CAP_IPC_LOCK) & 1n) === 1n) return 'none'
  const limits = await textOf(kernel, '/proc/self/limits')
  const limit = find(limits, /^Max locked memory\s+(\d+|unlimited)/m)
  if (limit === 'unlimited') return 'none'
  return limit === undefined ? undefined : { limit: BigInt(limit), locked: BigInt(locked) * 1024n }
}
