/** What directed sequences are made of. */

import { hex, ioctl, join, open } from '../areas/area.ts'
import type { Op } from '../operation.ts'

export interface Directed {
  readonly title: string
  readonly ops: readonly Op[]
  readonly lockPages?: number
}

export const PAGE = 4096
export const v2: readonly Op[] = [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 3)]
export const v1: readonly Op[] = [open('c0', 'container'), ...join('g0', 'edu0', 'c0', 1)]
export const emulated: readonly Op[] = [open('c0', 'container'), ...join('g2', 'mtty0', 'c0', 3)]

export const map = (iova: number, pages: number, more: Record<string, string | number> = {}): Op =>
  ioctl('c0', 'MAP', {
    in: {
      flags: 3,
      vaddr: `ram+${hex(iova % 0x10000)}`,
      iova: hex(iova),
      size: hex(pages * PAGE),
      ...more,
    },
  })
export const unmap = (
  iova: number,
  pages: number,
  more: Record<string, string | number> = {},
): Op =>
  ioctl('c0', 'UNMAP', { in: { flags: 0, iova: hex(iova), size: hex(pages * PAGE), ...more } })
export const unmapAll = (flags: number): Op =>
  ioctl('c0', 'UNMAP', { in: { flags, iova: '0x0', size: '0x0' } })
export const info = (argsz: number): Op => ioctl('c0', 'INFO', { in: { argsz } })
export const dirty = (flags: number): Op => ioctl('c0', 'DIRTY', { in: { flags } })
export const dirtyGet = (iova: number, pages: number, fill = '00'): Op =>
  ioctl('c0', 'DIRTY_GET', {
    in: {
      flags: 4,
      iova: hex(iova),
      size: hex(pages * PAGE),
      'bitmap.pgsize': '0x1000',
      'bitmap.size': '0x20',
      'bitmap.data': 'bits+0',
    },
    poke: ['bits+0', fill.repeat(48)],
    look: ['bits+0', 48],
  })
export const unmapDirty = (iova: number, pages: number): Op =>
  ioctl('c0', 'UNMAP_DIRTY', {
    in: {
      flags: 1,
      iova: hex(iova),
      size: hex(pages * PAGE),
      pgsize: '0x1000',
      'vfio_bitmap.size': '0x20',
      data: 'bits+0',
    },
    poke: ['bits+0', '00'.repeat(48)],
    look: ['bits+0', 48],
  })
export const locked: Op = { op: 'locked' }
export const close = (fd: string): Op => ({ op: 'close', fd })
export const extension = (value: number): Op => ({
  op: 'value',
  fd: 'c0',
  call: 'CHECK_EXTENSION',
  value,
})
export const extensions = Array.from({ length: 12 }, (_, value) => extension(value))

/** Decoding memory and mastering the bus. */
export const enable: Op = { op: 'pwrite', fd: 'd0', region: 7, at: 4, hex: '0600' }
