/**
 * An open file: what an fd refers to. Fds, devices and groups hold references to it, and it is
 * released when the last one goes. The defaults are what a kernel answers for a file without that
 * operation.
 */

import { ERRNO } from '../../../base/errno.ts'
import type { IoctlArg, MapRequest } from '../../../kernel/port.ts'
import type { DeviceMemory, Mm } from '../core/mm.ts'

/** `>= 0` or `-errno`; a promise where the kernel would sleep. */
export type Answer = number | Promise<number>

/** The process that makes a call. */
export interface Caller {
  readonly mm: Mm
  /** CAP_SYS_RESOURCE. */
  readonly mayRaiseLimits: boolean
  /** Gives the file an fd; the fd takes over the reference that came with making it. */
  install(file: OpenFile): number
  close(fd: number): number
  fileOf(fd: number): OpenFile | undefined
}

export abstract class OpenFile {
  /** Invariant: above zero until release, which happens once. */
  #references = 1
  /** The device that calls on the file are about, where they are about one. */
  deviceName: string | undefined
  /** What it was opened by; undefined for a file that another file made. */
  path: string | undefined

  get(): this {
    this.#references += 1
    return this
  }

  put(): void {
    this.#references -= 1
    if (this.#references === 0) this.release()
  }

  /** The last reference is gone. */
  protected abstract release(): void

  ioctl(_caller: Caller, _request: number, _arg: IoctlArg): Answer {
    return -ERRNO.ENOTTY
  }

  pread(_into: Uint8Array, _offset: bigint): Answer {
    return -ERRNO.EINVAL
  }

  pwrite(_from: Uint8Array, _offset: bigint): Answer {
    return -ERRNO.EINVAL
  }

  /** The bytes to map, in memory of this process; the kernel holds the file while they are. */
  mmap(_request: MapRequest): Promise<DeviceMemory | number> | number {
    return -ERRNO.ENODEV
  }

  read(_into: Uint8Array): Answer {
    return -ERRNO.EINVAL
  }

  write(_from: Uint8Array): Answer {
    return -ERRNO.EINVAL
  }
}
