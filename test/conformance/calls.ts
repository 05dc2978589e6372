/** The ioctls by short names, with the layout of their argument as one flat list of fields. */

import {
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_ENABLE,
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
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_QUERY_GFX_PLANE,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
  vfio_device_info,
  vfio_device_ioeventfd,
  vfio_irq_info,
  vfio_irq_set,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
  vfio_region_info,
} from '../../src/abi/device.ts'
import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_report,
} from '../../src/abi/dma-logging.ts'
import {
  VFIO_DEVICE_FEATURE,
  vfio_device_feature,
  vfio_device_low_power_entry_with_wakeup,
} from '../../src/abi/feature.ts'
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../../src/abi/group.ts'
import { type FieldType, type Struct, struct } from '../../src/abi/layout.ts'
import {
  VFIO_MIG_GET_PRECOPY_INFO,
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
  vfio_precopy_info,
} from '../../src/abi/mig-v2.ts'
import { IOMMUFD_REQUESTS } from '../contract/iommufd-requests.ts'

// biome-ignore lint/suspicious/noExplicitAny: any struct, whatever its fields.
type AnyStruct = Struct<any>

export interface Field {
  readonly type: FieldType
  readonly offset: number
}

export interface Call {
  readonly request: number
  readonly size: number
  readonly fields: Readonly<Record<string, Field>>
  /** Where the caller says how long the struct is: argsz, or the size that iommufd begins with. */
  readonly sizeAt: number | undefined
  /** Where the kernel puts an fd that it opens. */
  readonly fdAt: number | undefined
  /** Group numbers in the answer: from here on, in every eighth byte and the three behind it. */
  readonly groupsAt: number | undefined
}

const SIZES: Record<FieldType, number> = { u8: 1, u16: 2, u32: 4, s32: 4, u64: 8 }
export const sizeOf = (type: FieldType): number => SIZES[type]

/** Structs one behind the other; a name that is there already gets the prefix of its struct. */
const call = (
  { number: request }: { readonly number: number },
  parts: readonly AnyStruct[] = [],
  more: { readonly fd?: string; readonly groupsAt?: number } = {},
): Call => {
  const fields: Record<string, Field> = {}
  let size = 0
  for (const part of parts) {
    for (const [name, type] of Object.entries(part.types as Record<string, FieldType>)) {
      const key = name in fields ? `${part.cName}.${name}` : name
      fields[key] = { type, offset: size + (part.offsets[name] as number) }
    }
    size += part.size
  }
  const fdAt = more.fd === undefined ? undefined : fields[more.fd]?.offset
  const begin = fields.size?.offset === 0 && fields.size.type === 'u32' ? 0 : undefined
  const sizeAt = fields.argsz?.offset ?? begin
  return { request, size, fields, sizeAt, fdAt, groupsAt: more.groupsAt }
}

const feature = (...parts: readonly AnyStruct[]): Call =>
  call(VFIO_DEVICE_FEATURE, [vfio_device_feature, ...parts])

/** Under the names that the contract suites have for them. */
const iommufd = Object.fromEntries(
  Object.entries(IOMMUFD_REQUESTS).map(([name, { request, codec }]) => [
    name,
    call(request, [codec], name === 'FAULT_ALLOC' ? { fd: 'out_fault_fd' } : {}),
  ]),
) as Record<keyof typeof IOMMUFD_REQUESTS, Call>

export const CALLS = {
  ...iommufd,
  API_VERSION: call(VFIO_GET_API_VERSION),
  CHECK_EXTENSION: call(VFIO_CHECK_EXTENSION),
  SET_IOMMU: call(VFIO_SET_IOMMU),
  INFO: call(VFIO_IOMMU_GET_INFO, [vfio_iommu_type1_info]),
  MAP: call(VFIO_IOMMU_MAP_DMA, [vfio_iommu_type1_dma_map]),
  UNMAP: call(VFIO_IOMMU_UNMAP_DMA, [vfio_iommu_type1_dma_unmap]),
  UNMAP_DIRTY: call(VFIO_IOMMU_UNMAP_DMA, [vfio_iommu_type1_dma_unmap, vfio_bitmap]),
  ENABLE: call(VFIO_IOMMU_ENABLE),
  DIRTY: call(VFIO_IOMMU_DIRTY_PAGES, [vfio_iommu_type1_dirty_bitmap]),
  DIRTY_GET: call(VFIO_IOMMU_DIRTY_PAGES, [
    vfio_iommu_type1_dirty_bitmap,
    vfio_iommu_type1_dirty_bitmap_get,
  ]),

  STATUS: call(VFIO_GROUP_GET_STATUS, [vfio_group_status]),
  SET_CONTAINER: call(VFIO_GROUP_SET_CONTAINER, [struct('s32', { fd: 's32' })]),
  UNSET_CONTAINER: call(VFIO_GROUP_UNSET_CONTAINER),
  DEVICE_FD: call(VFIO_GROUP_GET_DEVICE_FD),

  DEVICE_INFO: call(VFIO_DEVICE_GET_INFO, [vfio_device_info]),
  REGION_INFO: call(VFIO_DEVICE_GET_REGION_INFO, [vfio_region_info]),
  IRQ_INFO: call(VFIO_DEVICE_GET_IRQ_INFO, [vfio_irq_info]),
  SET_IRQS: call(VFIO_DEVICE_SET_IRQS, [vfio_irq_set]),
  RESET: call(VFIO_DEVICE_RESET),
  HOT_RESET_INFO: call(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, [vfio_pci_hot_reset_info], {
    groupsAt: vfio_pci_hot_reset_info.size,
  }),
  HOT_RESET: call(VFIO_DEVICE_PCI_HOT_RESET, [vfio_pci_hot_reset]),
  GFX_PLANE: call(VFIO_DEVICE_QUERY_GFX_PLANE),
  IOEVENTFD: call(VFIO_DEVICE_IOEVENTFD, [vfio_device_ioeventfd]),
  BIND: call(VFIO_DEVICE_BIND_IOMMUFD, [vfio_device_bind_iommufd]),
  ATTACH: call(VFIO_DEVICE_ATTACH_IOMMUFD_PT, [vfio_device_attach_iommufd_pt]),
  DETACH: call(VFIO_DEVICE_DETACH_IOMMUFD_PT, [vfio_device_detach_iommufd_pt]),

  FEATURE: feature(),
  MIGRATION: feature(vfio_device_feature_migration),
  MIG_STATE: call(VFIO_DEVICE_FEATURE, [vfio_device_feature, vfio_device_feature_mig_state], {
    fd: 'data_fd',
  }),
  MIG_SIZE: feature(vfio_device_feature_mig_data_size),
  LOG_START: feature(vfio_device_feature_dma_logging_control),
  LOG_REPORT: feature(vfio_device_feature_dma_logging_report),
  WAKEUP: feature(vfio_device_low_power_entry_with_wakeup),
  PRECOPY: call(VFIO_MIG_GET_PRECOPY_INFO, [vfio_precopy_info]),
} as const satisfies Record<string, Call>

export type CallName = keyof typeof CALLS

export const callOf = (name: CallName): Call => CALLS[name]
