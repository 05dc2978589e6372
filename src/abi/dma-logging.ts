/**
 * vfio.h: dirty tracking by the device itself, since 6.1: the payloads of the DMA_LOGGING features
 * in feature.ts.
 */

import { struct } from './layout.ts'

/** `ranges` is the user address of num_ranges times the range below; page_size is in and out. */
export const vfio_device_feature_dma_logging_control = struct(
  'vfio_device_feature_dma_logging_control',
  { page_size: 'u64', num_ranges: 'u32', __reserved: 'u32', ranges: 'u64' },
)

export const vfio_device_feature_dma_logging_range = struct(
  'vfio_device_feature_dma_logging_range',
  { iova: 'u64', length: 'u64' },
)

/** `bitmap` is a user address; one bit per page of page_size. */
export const vfio_device_feature_dma_logging_report = struct(
  'vfio_device_feature_dma_logging_report',
  { iova: 'u64', length: 'u64', page_size: 'u64', bitmap: 'u64' },
)
