/**
 * The structs of vfio.h and iommufd.h of 6.12 (later ones as marked in src/abi), as literals: the
 * sizes and offsets here are written down from the headers, not computed from the code they check.
 */

import { describe, expect, test } from 'vitest'
import { structs } from './exports.ts'

/** The size behind each name; below it `offset:type field`. */
const LAYOUTS = `
vfio_info_cap_header 8
    0:u16 id  2:u16 version  4:u32 next
vfio_group_status 8
    0:u32 argsz  4:u32 flags
vfio_device_info 24
    0:u32 argsz  4:u32 flags  8:u32 num_regions  12:u32 num_irqs  16:u32 cap_offset  20:u32 pad
vfio_device_info_cap_pci_atomic_comp 16
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 flags  12:u32 reserved
vfio_region_info 32
    0:u32 argsz  4:u32 flags  8:u32 index  12:u32 cap_offset  16:u64 size  24:u64 offset
vfio_region_info_cap_sparse_mmap 16
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 nr_areas  12:u32 reserved
vfio_region_sparse_mmap_area 16
    0:u64 offset  8:u64 size
vfio_region_info_cap_type 16
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 type  12:u32 subtype
vfio_region_info_cap_nvlink2_ssatgt 16
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u64 tgt
vfio_region_info_cap_nvlink2_lnkspd 16
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 link_speed  12:u32 __pad
vfio_irq_info 16
    0:u32 argsz  4:u32 flags  8:u32 index  12:u32 count
vfio_irq_set 20
    0:u32 argsz  4:u32 flags  8:u32 index  12:u32 start  16:u32 count
vfio_pci_dependent_device 8
    0:u32 group_id  4:u16 segment  6:u8 bus  7:u8 devfn
vfio_pci_hot_reset_info 12
    0:u32 argsz  4:u32 flags  8:u32 count
vfio_pci_hot_reset 12
    0:u32 argsz  4:u32 flags  8:u32 count
vfio_device_ioeventfd 32
    0:u32 argsz  4:u32 flags  8:u64 offset  16:u64 data  24:s32 fd  28:u32 reserved
vfio_device_feature 8
    0:u32 argsz  4:u32 flags
vfio_device_bind_iommufd 16
    0:u32 argsz  4:u32 flags  8:s32 iommufd  12:u32 out_devid
vfio_device_attach_iommufd_pt 12
    0:u32 argsz  4:u32 flags  8:u32 pt_id
vfio_device_detach_iommufd_pt 8
    0:u32 argsz  4:u32 flags
vfio_device_migration_info 32
    0:u32 device_state  4:u32 reserved  8:u64 pending_bytes  16:u64 data_offset  24:u64 data_size
vfio_device_feature_migration 8
    0:u64 flags
vfio_device_feature_mig_state 8
    0:u32 device_state  4:s32 data_fd
vfio_device_feature_mig_data_size 8
    0:u64 stop_copy_length
vfio_device_feature_dma_logging_control 24
    0:u64 page_size  8:u32 num_ranges  12:u32 __reserved  16:u64 ranges
vfio_device_feature_dma_logging_range 16
    0:u64 iova  8:u64 length
vfio_device_feature_dma_logging_report 32
    0:u64 iova  8:u64 length  16:u64 page_size  24:u64 bitmap
vfio_device_low_power_entry_with_wakeup 8
    0:s32 wakeup_eventfd  4:u32 reserved
vfio_device_feature_bus_master 4
    0:u32 op
vfio_precopy_info 24
    0:u32 argsz  4:u32 flags  8:u64 initial_bytes  16:u64 dirty_bytes
vfio_iommu_type1_info 24
    0:u32 argsz  4:u32 flags  8:u64 iova_pgsizes  16:u32 cap_offset  20:u32 pad
vfio_iommu_type1_info_cap_iova_range 16
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 nr_iovas  12:u32 reserved
vfio_iova_range 16
    0:u64 start  8:u64 end
vfio_iommu_type1_info_cap_migration 32
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 flags  16:u64 pgsize_bitmap
    24:u64 max_dirty_bitmap_size
vfio_iommu_type1_info_dma_avail 12
    0:u16 header.id  2:u16 header.version  4:u32 header.next  8:u32 avail
vfio_iommu_type1_dma_map 32
    0:u32 argsz  4:u32 flags  8:u64 vaddr  16:u64 iova  24:u64 size
vfio_iommu_type1_dma_unmap 24
    0:u32 argsz  4:u32 flags  8:u64 iova  16:u64 size
vfio_bitmap 24
    0:u64 pgsize  8:u64 size  16:u64 data
vfio_iommu_type1_dirty_bitmap 8
    0:u32 argsz  4:u32 flags
vfio_iommu_type1_dirty_bitmap_get 40
    0:u64 iova  8:u64 size  16:u64 bitmap.pgsize  24:u64 bitmap.size  32:u64 bitmap.data
iommu_destroy 8
    0:u32 size  4:u32 id
iommu_ioas_alloc 12
    0:u32 size  4:u32 flags  8:u32 out_ioas_id
iommu_iova_range 16
    0:u64 start  8:u64 last
iommu_ioas_iova_ranges 32
    0:u32 size  4:u32 ioas_id  8:u32 num_iovas  12:u32 __reserved  16:u64 allowed_iovas
    24:u64 out_iova_alignment
iommu_ioas_allow_iovas 24
    0:u32 size  4:u32 ioas_id  8:u32 num_iovas  12:u32 __reserved  16:u64 allowed_iovas
iommu_ioas_map 40
    0:u32 size  4:u32 flags  8:u32 ioas_id  12:u32 __reserved  16:u64 user_va  24:u64 length
    32:u64 iova
iommu_ioas_copy 40
    0:u32 size  4:u32 flags  8:u32 dst_ioas_id  12:u32 src_ioas_id  16:u64 length  24:u64 dst_iova
    32:u64 src_iova
iommu_ioas_unmap 24
    0:u32 size  4:u32 ioas_id  8:u64 iova  16:u64 length
iommu_option 24
    0:u32 size  4:u32 option_id  8:u16 op  10:u16 __reserved  12:u32 object_id  16:u64 val64
iommu_vfio_ioas 12
    0:u32 size  4:u32 ioas_id  8:u16 op  10:u16 __reserved
iommu_hwpt_alloc 48
    0:u32 size  4:u32 flags  8:u32 dev_id  12:u32 pt_id  16:u32 out_hwpt_id  20:u32 __reserved
    24:u32 data_type  28:u32 data_len  32:u64 data_uptr  40:u32 fault_id  44:u32 __reserved2
iommu_hw_info 40
    0:u32 size  4:u32 flags  8:u32 dev_id  12:u32 data_len  16:u64 data_uptr  24:u32 out_data_type
    28:u8 out_max_pasid_log2  29:u8 __reserved[0]  30:u8 __reserved[1]  31:u8 __reserved[2]
    32:u64 out_capabilities
iommu_hw_info_vtd 24
    0:u32 flags  4:u32 __reserved  8:u64 cap_reg  16:u64 ecap_reg
iommu_hwpt_set_dirty_tracking 16
    0:u32 size  4:u32 flags  8:u32 hwpt_id  12:u32 __reserved
iommu_hwpt_get_dirty_bitmap 48
    0:u32 size  4:u32 hwpt_id  8:u32 flags  12:u32 __reserved  16:u64 iova  24:u64 length
    32:u64 page_size  40:u64 data
iommu_hwpt_invalidate 32
    0:u32 size  4:u32 hwpt_id  8:u64 data_uptr  16:u32 data_type  20:u32 entry_len
    24:u32 entry_num  28:u32 __reserved
iommu_hwpt_pgfault 40
    0:u32 flags  4:u32 dev_id  8:u32 pasid  12:u32 grpid  16:u32 perm  20:u32 __reserved
    24:u64 addr  32:u32 length  36:u32 cookie
iommu_hwpt_page_response 8
    0:u32 cookie  4:u32 code
iommu_fault_alloc 16
    0:u32 size  4:u32 flags  8:u32 out_fault_id  12:u32 out_fault_fd
iommu_ioas_map_file 40
    0:u32 size  4:u32 flags  8:u32 ioas_id  12:s32 fd  16:u64 start  24:u64 length  32:u64 iova
iommu_ioas_change_process 8
    0:u32 size  4:u32 __reserved
iommu_viommu_alloc 40
    0:u32 size  4:u32 flags  8:u32 type  12:u32 dev_id  16:u32 hwpt_id  20:u32 out_viommu_id
    24:u32 data_len  28:u32 __reserved  32:u64 data_uptr
iommu_vdevice_alloc 24
    0:u32 size  4:u32 viommu_id  8:u32 dev_id  12:u32 out_vdevice_id  16:u64 virt_id
iommu_veventq_alloc 32
    0:u32 size  4:u32 flags  8:u32 viommu_id  12:u32 type  16:u32 veventq_depth
    20:u32 out_veventq_id  24:u32 out_veventq_fd  28:u32 __reserved
iommu_hw_queue_alloc 40
    0:u32 size  4:u32 flags  8:u32 viommu_id  12:u32 type  16:u32 index  20:u32 out_hw_queue_id
    24:u64 nesting_parent_iova  32:u64 length
vfio_device_bind_iommufd_token 24
    0:u32 argsz  4:u32 flags  8:s32 iommufd  12:u32 out_devid  16:u64 token_uuid_ptr
vfio_device_attach_iommufd_pt_pasid 16
    0:u32 argsz  4:u32 flags  8:u32 pt_id  12:u32 pasid
vfio_device_detach_iommufd_pt_pasid 12
    0:u32 argsz  4:u32 flags  8:u32 pasid
vfio_device_feature_dma_buf 16
    0:u32 region_index  4:u32 open_flags  8:u32 flags  12:u32 nr_ranges
vfio_region_dma_range 16
    0:u64 offset  8:u64 length
iommu_hwpt_vtd_s1 24
    0:u64 flags  8:u64 pgtbl_addr  16:u32 addr_width  20:u32 __reserved
iommu_hwpt_vtd_s1_invalidate 24
    0:u64 addr  8:u64 npages  16:u32 flags  20:u32 __reserved
`

/** Bytes that no field covers, because the header has no name for them either. */
const HOLES: Readonly<Record<string, readonly number[]>> = {
  vfio_iommu_type1_info_cap_migration: [12, 13, 14, 15],
}

const WIDTH = { u8: 1, u16: 2, u32: 4, s32: 4, u64: 8 } as const

interface Layout {
  readonly name: string
  readonly size: number
  readonly fields: readonly string[]
}

const layouts: readonly Layout[] = LAYOUTS.trim()
  .split(/\n(?! )/)
  .map((entry) => {
    const [head = '', ...lines] = entry.split('\n')
    const [name = '', size] = head.split(' ')
    return { name, size: Number(size), fields: lines.join('').trim().split(/ {2,}/) }
  })

describe('struct layouts', () => {
  test.each(layouts)('$name has $size bytes and every field in its place', (layout) => {
    const struct = structs.get(layout.name)

    const fields = Object.entries<string>(struct?.types ?? {}).map(
      ([field, type]) => `${struct?.offsets[field]}:${type} ${field}`,
    )

    expect(struct?.size).toBe(layout.size)
    expect(fields).toEqual(layout.fields)
  })

  test('the table has every struct of the room', () => {
    expect([...structs.keys()].sort()).toEqual(layouts.map(({ name }) => name).sort())
  })

  test('a struct is exported under its C name, a longer form of it under another name', () => {
    const renamed = [...structs].filter(([name, { cName }]) => name !== cName)

    expect(Object.fromEntries(renamed.map(([name, { cName }]) => [name, cName]))).toEqual({
      vfio_device_attach_iommufd_pt_pasid: 'vfio_device_attach_iommufd_pt',
      vfio_device_bind_iommufd_token: 'vfio_device_bind_iommufd',
      vfio_device_detach_iommufd_pt_pasid: 'vfio_device_detach_iommufd_pt',
    })
  })

  test('every byte of a struct belongs to a field, apart from the holes of the header', () => {
    for (const [name, struct] of structs) {
      const covered = Object.entries<keyof typeof WIDTH>(struct.types).flatMap(([field, type]) =>
        Array.from({ length: WIDTH[type] }, (_, byte) => (struct.offsets[field] ?? 0) + byte),
      )

      const holes = Array.from({ length: struct.size }, (_, byte) => byte).filter(
        (byte) => !covered.includes(byte),
      )

      expect(holes, name).toEqual(HOLES[name] ?? [])
    }
  })
})
