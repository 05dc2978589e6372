/**
 * vfio.h after 6.12: the cdev requests in their longer forms. The number and the C name are those
 * of the short form; an older kernel reads the part it knows and refuses the flag with EINVAL.
 */

import { struct } from './layout.ts'

/** Since 6.17. */
export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1

/** Since 6.17; token_uuid_ptr is the user address of 16 bytes. */
export const vfio_device_bind_iommufd_token = struct('vfio_device_bind_iommufd', {
  argsz: 'u32',
  flags: 'u32',
  iommufd: 's32',
  out_devid: 'u32',
  token_uuid_ptr: 'u64',
})

/** Since 6.15, as is DETACH. */
export const VFIO_DEVICE_ATTACH_PASID = 1
export const VFIO_DEVICE_DETACH_PASID = 1

/** Since 6.15. */
export const vfio_device_attach_iommufd_pt_pasid = struct('vfio_device_attach_iommufd_pt', {
  argsz: 'u32',
  flags: 'u32',
  pt_id: 'u32',
  pasid: 'u32',
})

/** Since 6.15. */
export const vfio_device_detach_iommufd_pt_pasid = struct('vfio_device_detach_iommufd_pt', {
  argsz: 'u32',
  flags: 'u32',
  pasid: 'u32',
})
