/** Raw requests of iommufd for tests: the answer as it is, and what came back. */

import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../../src/abi/device.ts'
import type { Ioctl } from '../../src/abi/ioctl.ts'
import {
  IOMMU_DESTROY,
  IOMMU_HWPT_ALLOC,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_GET,
  iommu_destroy,
  iommu_hwpt_alloc,
  iommu_ioas_alloc,
  iommu_ioas_allow_iovas,
  iommu_ioas_copy,
  iommu_ioas_iova_ranges,
  iommu_ioas_map,
  iommu_ioas_unmap,
  iommu_iova_range,
  iommu_option,
  iommu_vfio_ioas,
} from '../../src/abi/iommufd.ts'
import type { FieldType, Struct, Values } from '../../src/abi/layout.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { must, type Said, said } from './answers.ts'
import type { Machine } from './machine.ts'

export const PAGE = 4096n
export const U64_MAX = (1n << 64n) - 1n
/** What every mapping here is for: reading and writing. */
export const RW = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE
export const FIXED = IOMMU_IOAS_MAP_FIXED_IOVA | RW

type Fields = Readonly<Record<string, FieldType>>

/** One iommufd and its requests. */
export class Iommufd {
  readonly fd: number
  readonly #kernel: Kernel
  readonly #machine: Machine

  constructor(machine: Machine, fd: number) {
    this.fd = fd
    this.#machine = machine
    this.#kernel = machine.kernel
  }

  /** A request with the struct's size in place: the answer, and the struct after it. */
  async ask<F extends Fields>(
    request: Ioctl<'iommufd'>,
    codec: Struct<F>,
    values: Partial<Values<F>>,
  ): Promise<{ readonly answer: Said } & Values<F>> {
    const bytes = codec.encode({ size: codec.size, ...values } as Partial<Values<F>>)
    const answer = await this.#kernel.ioctl(this.fd, request.number, bytes)
    return { answer: said(answer), ...codec.decode(bytes) }
  }

  async newIoas(): Promise<number> {
    const { answer, out_ioas_id } = await this.ask(IOMMU_IOAS_ALLOC, iommu_ioas_alloc, {})
    must(typeof answer === 'number' ? answer : -1, `allocate an ioas (${answer})`)
    return out_ioas_id
  }

  async destroy(id: number): Promise<Said> {
    return (await this.ask(IOMMU_DESTROY, iommu_destroy, { id })).answer
  }

  map(map: Partial<Values<(typeof iommu_ioas_map)['types']>>) {
    return this.ask(IOMMU_IOAS_MAP, iommu_ioas_map, { flags: RW, ...map })
  }

  /** A mapping at that iova. */
  async mapAt(ioas: number, at: { iova: bigint; vaddr: bigint; length: bigint }): Promise<Said> {
    const { iova, vaddr, length } = at
    return (await this.map({ flags: FIXED, ioas_id: ioas, iova, user_va: vaddr, length })).answer
  }

  async unmap(ioas_id: number, iova: bigint, length: bigint) {
    const done = await this.ask(IOMMU_IOAS_UNMAP, iommu_ioas_unmap, { ioas_id, iova, length })
    return { answer: done.answer, length: done.length }
  }

  unmapAll(ioas: number) {
    return this.unmap(ioas, 0n, U64_MAX)
  }

  copy(copy: Partial<Values<(typeof iommu_ioas_copy)['types']>>) {
    return this.ask(IOMMU_IOAS_COPY, iommu_ioas_copy, { flags: RW, ...copy })
  }

  /** The ranges that there is room for; the rest of the memory stays as it was. */
  async ranges(ioas_id: number, room = 16) {
    const { segment } = await this.#machine.memory(4096)
    segment.bytes.fill(0xa5)
    const { answer, num_iovas, out_iova_alignment } = await this.ask(
      IOMMU_IOAS_IOVA_RANGES,
      iommu_ioas_iova_ranges,
      { ioas_id, num_iovas: room, allowed_iovas: segment.address },
    )
    const ranges = Array.from({ length: Math.min(num_iovas, 16) }, (_, index) =>
      iommu_iova_range.decode(segment.bytes, index * iommu_iova_range.size),
    )
    return { answer, count: num_iovas, alignment: out_iova_alignment, ranges }
  }

  async allow(ioas_id: number, ranges: readonly { start: bigint; last: bigint }[]): Promise<Said> {
    const { segment } = await this.#machine.memory(4096)
    for (const [index, range] of ranges.entries())
      iommu_iova_range.write(segment.bytes, range, index * iommu_iova_range.size)
    const allowed = await this.ask(IOMMU_IOAS_ALLOW_IOVAS, iommu_ioas_allow_iovas, {
      ioas_id,
      num_iovas: ranges.length,
      allowed_iovas: segment.address,
    })
    return allowed.answer
  }

  async setOption(option_id: number, object_id: number, val64: bigint): Promise<Said> {
    const op = IOMMU_OPTION_OP_SET
    return (await this.ask(IOMMU_OPTION, iommu_option, { option_id, op, object_id, val64 })).answer
  }

  async option(option_id: number, object_id: number): Promise<Said | bigint> {
    const op = IOMMU_OPTION_OP_GET
    const got = await this.ask(IOMMU_OPTION, iommu_option, { option_id, op, object_id, val64: 77n })
    return got.answer === 0 ? got.val64 : got.answer
  }

  setHugePages(ioas: number, value: bigint): Promise<Said> {
    return this.setOption(IOMMU_OPTION_HUGE_PAGES, ioas, value)
  }

  vfioIoas(op: number, ioas_id = 0) {
    return this.ask(IOMMU_VFIO_IOAS, iommu_vfio_ioas, { op, ioas_id })
  }

  /** The ioas that the requests of a container act on. */
  async compatIoas(): Promise<number> {
    return (await this.vfioIoas(IOMMU_VFIO_IOAS_GET)).ioas_id
  }

  hwpt(hwpt: Partial<Values<(typeof iommu_hwpt_alloc)['types']>>) {
    return this.ask(IOMMU_HWPT_ALLOC, iommu_hwpt_alloc, hwpt)
  }
}

export const openIommufd = async (machine: Machine): Promise<Iommufd> =>
  new Iommufd(machine, must(await machine.open('/dev/iommu'), 'open an iommufd'))

// Cdevs.

/** Where the node of a device is, by its PCI address or the UUID of an mdev. */
export const cdevOf = async (machine: Machine, name: string): Promise<string> => {
  const bus = name.includes('.') ? 'pci' : 'mdev'
  const [vfio] = await machine.names(`/sys/bus/${bus}/devices/${name}/vfio-dev`)
  return `/dev/vfio/devices/${vfio}`
}

export const openCdev = async (machine: Machine, name: string): Promise<number> =>
  must(await machine.open(await cdevOf(machine, name)), `open the cdev of ${name}`)

export const bind = async (
  { kernel }: Machine,
  device: number,
  iommufd: number,
  more: Partial<Values<(typeof vfio_device_bind_iommufd)['types']>> = {},
): Promise<{ readonly answer: Said; readonly id: number }> => {
  const { size } = vfio_device_bind_iommufd
  const bytes = vfio_device_bind_iommufd.encode({ argsz: size, iommufd, ...more })
  const answer = await kernel.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD.number, bytes)
  return { answer: said(answer), id: vfio_device_bind_iommufd.decode(bytes).out_devid }
}

export const attach = async (
  { kernel }: Machine,
  device: number,
  pt_id: number,
  more: Partial<Values<(typeof vfio_device_attach_iommufd_pt)['types']>> = {},
): Promise<{ readonly answer: Said; readonly id: number }> => {
  const { size } = vfio_device_attach_iommufd_pt
  const bytes = vfio_device_attach_iommufd_pt.encode({ argsz: size, pt_id, ...more })
  const answer = await kernel.ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT.number, bytes)
  return { answer: said(answer), id: vfio_device_attach_iommufd_pt.decode(bytes).pt_id }
}

export const detach = async (
  { kernel }: Machine,
  device: number,
  more: Partial<Values<(typeof vfio_device_detach_iommufd_pt)['types']>> = {},
): Promise<Said> => {
  const { size } = vfio_device_detach_iommufd_pt
  const bytes = vfio_device_detach_iommufd_pt.encode({ argsz: size, ...more })
  return said(await kernel.ioctl(device, VFIO_DEVICE_DETACH_IOMMUFD_PT.number, bytes))
}

export interface Bound {
  readonly device: number
  /** The id of the device's object. */
  readonly id: number
}

/** A device whose cdev is bound to the iommufd. */
export const bound = async (machine: Machine, iommufd: Iommufd, name: string): Promise<Bound> => {
  const device = await openCdev(machine, name)
  const { answer, id } = await bind(machine, device, iommufd.fd)
  if (answer !== 0) throw new Error(`Cannot bind ${name}: ${answer}`)
  return { device, id }
}

/** The same, attached to the ioas or hwpt. */
export const boundAndAttached = async (
  machine: Machine,
  iommufd: Iommufd,
  name: string,
  ptId: number,
): Promise<Bound & { readonly hwpt: number }> => {
  const made = await bound(machine, iommufd, name)
  const { answer, id } = await attach(machine, made.device, ptId)
  if (answer !== 0) throw new Error(`Cannot attach ${name}: ${answer}`)
  return { ...made, hwpt: id }
}
