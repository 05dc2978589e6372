/** Raw calls for tests: the answer as it is, and the struct that came back. */

import {
  VFIO_CHECK_EXTENSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
} from '../../src/abi/container.ts'
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_SET_IRQS,
  vfio_device_info,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
} from '../../src/abi/device.ts'
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../src/abi/feature.ts'
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  vfio_group_status,
} from '../../src/abi/group.ts'
import { vfio_device_feature_mig_state } from '../../src/abi/mig-v2.ts'
import type { Kernel } from '../../src/kernel/port.ts'

/** An s32 in memory: an fd that a request points to. */
export const s32 = (...values: number[]): Uint8Array =>
  new Uint8Array(new Int32Array(values).buffer)

export const cString = (text: string): Uint8Array => new TextEncoder().encode(`${text}\0`)

// Groups.

export const getStatus = async (
  kernel: Kernel,
  group: number,
  argsz: number = vfio_group_status.size,
): Promise<{ readonly answer: number; readonly flags: number }> => {
  const status = vfio_group_status.encode({ argsz })
  const answer = await kernel.ioctl(group, VFIO_GROUP_GET_STATUS.number, status)
  return { answer, flags: vfio_group_status.decode(status).flags }
}

export const setContainer = (kernel: Kernel, group: number, container: number): Promise<number> =>
  kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER.number, s32(container))

export const getDeviceFd = (kernel: Kernel, group: number, name: string): Promise<number> =>
  kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD.number, cString(name))

// Containers.

export const checkExtension = (
  kernel: Kernel,
  container: number,
  extension: number,
): Promise<number> => kernel.ioctl(container, VFIO_CHECK_EXTENSION.number, extension)

export const setIommu = (kernel: Kernel, container: number, model: number): Promise<number> =>
  kernel.ioctl(container, VFIO_SET_IOMMU.number, model)

export interface MapArguments {
  readonly argsz?: number
  readonly flags?: number
  readonly vaddr?: bigint
  readonly iova?: bigint
  readonly size?: bigint
}

/** VFIO_IOMMU_MAP_DMA; flags default to read and write. */
export const mapDma = (kernel: Kernel, container: number, map: MapArguments): Promise<number> =>
  kernel.ioctl(
    container,
    VFIO_IOMMU_MAP_DMA.number,
    vfio_iommu_type1_dma_map.encode({ argsz: 32, flags: 3, ...map }),
  )

export interface UnmapArguments {
  readonly argsz?: number
  readonly flags?: number
  readonly iova?: bigint
  readonly size?: bigint
  readonly bitmap?: { readonly pgsize: bigint; readonly size: bigint; readonly data: bigint }
}

export const unmapDma = async (
  kernel: Kernel,
  container: number,
  { bitmap, ...unmap }: UnmapArguments,
): Promise<{ readonly answer: number; readonly size: bigint }> => {
  const argsz = bitmap ? vfio_iommu_type1_dma_unmap.size + vfio_bitmap.size : 24
  const bytes = vfio_iommu_type1_dma_unmap.encode({ argsz, ...unmap }, vfio_bitmap.size)
  if (bitmap) vfio_bitmap.write(bytes, bitmap, vfio_iommu_type1_dma_unmap.size)
  const answer = await kernel.ioctl(container, VFIO_IOMMU_UNMAP_DMA.number, bytes)
  return { answer, size: vfio_iommu_type1_dma_unmap.decode(bytes).size }
}

/** VFIO_IOMMU_GET_INFO with a buffer of `room` bytes that says it has `argsz`. */
export const getInfo = async (kernel: Kernel, container: number, argsz = 512, room = 512) => {
  const bytes = new Uint8Array(room)
  vfio_iommu_type1_info.write(bytes, { argsz })
  const answer = await kernel.ioctl(container, VFIO_IOMMU_GET_INFO.number, bytes)
  return { answer, bytes, info: vfio_iommu_type1_info.decode(bytes) }
}

export interface GetBitmap {
  readonly argsz?: number
  readonly iova: bigint
  readonly size: bigint
  readonly bitmap: { readonly pgsize: bigint; readonly size: bigint; readonly data: bigint }
}

export const dirtyPages = (kernel: Kernel, container: number, flags: number, argsz = 8) =>
  kernel.ioctl(
    container,
    VFIO_IOMMU_DIRTY_PAGES.number,
    vfio_iommu_type1_dirty_bitmap.encode({ argsz, flags }),
  )

export const getDirtyBitmap = (kernel: Kernel, container: number, get: GetBitmap) => {
  const { size } = vfio_iommu_type1_dirty_bitmap
  const bytes = vfio_iommu_type1_dirty_bitmap.encode(
    {
      argsz: get.argsz ?? size + vfio_iommu_type1_dirty_bitmap_get.size,
      flags: VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
    },
    vfio_iommu_type1_dirty_bitmap_get.size,
  )
  vfio_iommu_type1_dirty_bitmap_get.write(
    bytes,
    {
      iova: get.iova,
      size: get.size,
      'bitmap.pgsize': get.bitmap.pgsize,
      'bitmap.size': get.bitmap.size,
      'bitmap.data': get.bitmap.data,
    },
    size,
  )
  return kernel.ioctl(container, VFIO_IOMMU_DIRTY_PAGES.number, bytes)
}

// Devices.

export const getDeviceInfo = async (kernel: Kernel, device: number, argsz = 24) => {
  const bytes = vfio_device_info.encode({ argsz, cap_offset: 0xdead, pad: 0xbeef })
  const answer = await kernel.ioctl(device, VFIO_DEVICE_GET_INFO.number, bytes)
  return { answer, ...vfio_device_info.decode(bytes) }
}

export const getRegionInfo = async (kernel: Kernel, device: number, index: number, argsz = 32) => {
  const bytes = new Uint8Array(Math.max(argsz, vfio_region_info.size))
  vfio_region_info.write(bytes, { argsz, index })
  const answer = await kernel.ioctl(device, VFIO_DEVICE_GET_REGION_INFO.number, bytes)
  return { answer, bytes, ...vfio_region_info.decode(bytes) }
}

export const getIrqInfo = async (kernel: Kernel, device: number, index: number, argsz = 16) => {
  const bytes = vfio_irq_info.encode({ argsz, index })
  const answer = await kernel.ioctl(device, VFIO_DEVICE_GET_IRQ_INFO.number, bytes)
  return { answer, ...vfio_irq_info.decode(bytes) }
}

export interface SetIrqs {
  readonly argsz?: number
  readonly flags: number
  readonly index: number
  readonly start?: number
  readonly count: number
  readonly data?: Uint8Array
}

export const setIrqs = (
  kernel: Kernel,
  device: number,
  { data = new Uint8Array(0), ...set }: SetIrqs,
): Promise<number> => {
  const argsz = vfio_irq_set.size + data.length
  const bytes = vfio_irq_set.encode({ argsz, ...set }, data.length)
  bytes.set(data, vfio_irq_set.size)
  return kernel.ioctl(device, VFIO_DEVICE_SET_IRQS.number, bytes)
}

/** VFIO_DEVICE_FEATURE: `payload` is in and out. */
export const feature = async (
  kernel: Kernel,
  device: number,
  flags: number,
  payload: Uint8Array = new Uint8Array(0),
  argsz: number = vfio_device_feature.size + payload.length,
): Promise<number> => {
  const bytes = vfio_device_feature.encode({ argsz, flags }, payload.length)
  bytes.set(payload, vfio_device_feature.size)
  const answer = await kernel.ioctl(device, VFIO_DEVICE_FEATURE.number, bytes)
  payload.set(bytes.subarray(vfio_device_feature.size))
  return answer
}

export interface MigState {
  readonly answer: number
  readonly state: number
  readonly dataFd: number
}

const migState = async (kernel: Kernel, device: number, flag: number, device_state: number) => {
  const payload = vfio_device_feature_mig_state.encode({ device_state, data_fd: 0x5555 })
  const flags = VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | flag
  const answer = await feature(kernel, device, flags, payload)
  const { device_state: state, data_fd: dataFd } = vfio_device_feature_mig_state.decode(payload)
  return { answer, state, dataFd }
}

export const getMigState = (kernel: Kernel, device: number): Promise<MigState> =>
  migState(kernel, device, VFIO_DEVICE_FEATURE_GET, 0x77)

export const setMigState = (kernel: Kernel, device: number, state: number): Promise<MigState> =>
  migState(kernel, device, VFIO_DEVICE_FEATURE_SET, state)
