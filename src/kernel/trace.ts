/**
 * A kernel that writes down every call: a decorator of the port, one line per call, after strace.
 *
 *   ioctl(container 12, VFIO_IOMMU_MAP_DMA, {flags=3, vaddr=0x7f.., iova=0x1000, size=0x1000}) = 0 <21us>
 *
 * Rule: a trace neither holds up nor changes a call. The call is made in the moment that it is
 * asked for, its own promise is handed on, and whatever fails while a line is made costs that line.
 */

import { type FdKind, hex } from '../base/units.ts'
import type { Segment } from '../os/memory.ts'
import type { HostLooks } from './host-looks.ts'
import type { IoctlArg, Kernel, MapRequest } from './port.ts'
import { saidOf, seeRequest } from './trace-request.ts'

/** Takes one line with its end. It must not wait. */
export type WriteLine = (line: string) => void

/** As /dev names its files. */
const KIND_OF_PATH: readonly (readonly [RegExp, FdKind])[] = [
  [/^\/dev\/vfio\/vfio$/, 'container'],
  [/^\/dev\/iommu$/, 'iommufd'],
  [/^\/dev\/vfio\/devices\//, 'device'],
  [/^\/dev\/vfio\/(noiommu-)?\d+$/, 'group'],
]

const WORDS: Readonly<Record<FdKind, string>> = {
  container: 'container',
  group: 'group',
  device: 'device',
  dataFd: 'data_fd',
  iommufd: 'iommufd',
}

/** Registers fit: the bytes of anything longer are not shown. */
const SHOWN_BYTES_MAX = 8

/** vfio-pci: the region is in the bits of an offset above these. */
const REGION_SHIFT = 40n

export class TracedKernel implements Kernel {
  readonly #kernel: Kernel
  readonly #write: WriteLine
  readonly #now: () => bigint
  readonly #kinds = new Map<number, FdKind>()

  /** @param now nanoseconds of a clock that never goes back */
  constructor(kernel: Kernel, write: WriteLine, now = process.hrtime.bigint) {
    this.#kernel = kernel
    this.#write = write
    this.#now = now
  }

  open(path: string, flags: number): Promise<number> {
    const kind = KIND_OF_PATH.find(([pattern]) => pattern.test(path))?.[1]
    return this.#call(
      () => `open(${JSON.stringify(path)}, ${hex(flags)})`,
      () => this.#kernel.open(path, flags),
      (fd) => {
        if (fd >= 0 && kind !== undefined) this.#kinds.set(fd, kind)
        return fd < 0 ? saidOf(fd) : this.#nameOf(fd)
      },
    )
  }

  close(fd: number): Promise<number> {
    const text = `close(${this.#nameOf(fd)})`
    // Before the call: as soon as it is made, the number may be that of another file.
    this.#kinds.delete(fd)
    return this.#call(
      () => text,
      () => this.#kernel.close(fd),
      saidOf,
    )
  }

  ioctl(fd: number, request: number, arg: IoctlArg): Promise<number> {
    const name = this.#nameOf(fd)
    const seen = attempt(() => seeRequest(this.#kinds.get(fd), request, arg, this.#nameOf))
    return this.#call(
      () => `ioctl(${name}, ${seen?.text ?? hex(request)})`,
      () => this.#kernel.ioctl(fd, request, arg),
      (answer) => {
        for (const [opened, kind] of seen?.opened(answer) ?? []) this.#kinds.set(opened, kind)
        return seen?.said(answer, this.#nameOf) ?? saidOf(answer)
      },
    )
  }

  pread(fd: number, into: Uint8Array, offset: bigint): Promise<number> {
    return this.#call(
      () => `pread(${this.#nameOf(fd)}, ${into.length} bytes, ${placeOf(offset)})`,
      () => this.#kernel.pread(fd, into, offset),
      (count) => `${saidOf(count)}${shown(into, count)}`,
    )
  }

  pwrite(fd: number, from: Uint8Array, offset: bigint): Promise<number> {
    return this.#call(
      () =>
        `pwrite(${this.#nameOf(fd)}, ${from.length} bytes${shown(from, from.length)}, ${placeOf(offset)})`,
      () => this.#kernel.pwrite(fd, from, offset),
      saidOf,
    )
  }

  read(fd: number, into: Uint8Array): Promise<number> {
    return this.#call(
      () => `read(${this.#nameOf(fd)}, ${into.length} bytes)`,
      () => this.#kernel.read(fd, into),
      saidOf,
    )
  }

  write(fd: number, from: Uint8Array): Promise<number> {
    return this.#call(
      () => `write(${this.#nameOf(fd)}, ${from.length} bytes)`,
      () => this.#kernel.write(fd, from),
      saidOf,
    )
  }

  mmap(fd: number, request: MapRequest): Promise<Segment | number> {
    const { offset, length, access } = request
    return this.#call(
      () => `mmap(${this.#nameOf(fd)}, ${hex(length)} bytes, ${access}, ${placeOf(offset)})`,
      () => this.#kernel.mmap(fd, request),
      (memory) => (typeof memory === 'number' ? saidOf(memory) : hex(memory.address)),
    )
  }

  munmap(segment: Segment): Promise<number> {
    return this.#call(
      () => `munmap(${hex(segment.address)}, ${hex(segment.length)} bytes)`,
      () => this.#kernel.munmap(segment),
      saidOf,
    )
  }

  exportFd(fd: number): Promise<number> {
    return this.#call(
      () => `exportFd(${this.#nameOf(fd)})`,
      () => this.#kernel.exportFd(fd),
      (own) => (own < 0 ? saidOf(own) : `fd ${own}`),
    )
  }

  readFile(path: string): Promise<Uint8Array | number> {
    return this.#call(
      () => `readFile(${JSON.stringify(path)})`,
      () => this.#kernel.readFile(path),
      (found) => (typeof found === 'number' ? saidOf(found) : `${found.length} bytes`),
    )
  }

  writeFile(path: string, data: string): Promise<number> {
    return this.#call(
      () => `writeFile(${JSON.stringify(path)}, ${JSON.stringify(data)})`,
      () => this.#kernel.writeFile(path, data),
      saidOf,
    )
  }

  readDir(path: string): Promise<string[] | number> {
    return this.#call(
      () => `readDir(${JSON.stringify(path)})`,
      () => this.#kernel.readDir(path),
      (names) => (typeof names === 'number' ? saidOf(names) : `${names.length} names`),
    )
  }

  readLink(path: string): Promise<string | number> {
    return this.#call(
      () => `readLink(${JSON.stringify(path)})`,
      () => this.#kernel.readLink(path),
      (target) => (typeof target === 'number' ? saidOf(target) : JSON.stringify(target)),
    )
  }

  get hostLooks(): HostLooks | undefined {
    const looks = this.#kernel.hostLooks
    return (
      looks && {
        vfioHolders: () =>
          this.#call(
            () => 'vfioHolders()',
            () => looks.vfioHolders(),
            (holders) => `${holders.length} holders`,
          ),
        hostFacts: (functions) =>
          this.#call(
            () => `hostFacts(${functions.join(', ')})`,
            () => looks.hostFacts(functions),
            () => 'facts',
          ),
      }
    )
  }

  readonly #nameOf = (fd: number): string => {
    const kind = this.#kinds.get(fd)
    return `${kind === undefined ? 'fd' : WORDS[kind]} ${fd}`
  }

  /** The line is written, and what the answer opened is known, before the caller goes on. */
  #call<T>(text: () => string, make: () => Promise<T>, said: (answer: T) => string): Promise<T> {
    const call = attempt(text) ?? '?'
    const began = attempt(this.#now) ?? 0n
    const answered = make()
    const end = (answer: string): void =>
      void attempt(() => {
        const microseconds = (this.#now() - began) / 1000n
        this.#write(`${call} = ${answer} <${microseconds}us>\n`)
      })
    answered.then(
      (answer) => end(attempt(() => said(answer)) ?? '?'),
      (failure) => end(`failed: ${failure}`),
    )
    return answered
  }
}

/** What is made for the trace, or undefined where it cannot be. */
const attempt = <T>(make: () => T): T | undefined => {
  try {
    return make()
  } catch {
    return undefined
  }
}

/** ` 0600`: the bytes of a register. */
const shown = (bytes: Uint8Array, count: number): string =>
  count > 0 && count <= SHOWN_BYTES_MAX
    ? ` ${Buffer.from(bytes.subarray(0, count)).toString('hex')}`
    : ''

/** `region 7 at 0x4` */
const placeOf = (offset: bigint): string =>
  `region ${offset >> REGION_SHIFT} at ${hex(offset & ((1n << REGION_SHIFT) - 1n))}`
