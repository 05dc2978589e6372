/** Where iommufd puts what may go anywhere, and what keeps an address space in use. */

import { hex, ioctl, open } from '../areas/area.ts'
import type { Op } from '../operation.ts'
import { type Directed, PAGE } from './steps.ts'

const FIXED = 7
const ANYWHERE = 6

const start: readonly Op[] = [open('i0', 'iommufd'), ioctl('i0', 'IOAS_ALLOC')]
const map = (flags: number, iova: number, pages = 1, vaddr = 'ram+0x1000'): Op =>
  ioctl('i0', 'IOAS_MAP', {
    in: { flags, ioas_id: 1, user_va: vaddr, length: hex(pages * PAGE), iova: hex(iova) },
  })
const unmap = (iova: number, pages: number): Op =>
  ioctl('i0', 'IOAS_UNMAP', { in: { ioas_id: 1, iova: hex(iova), length: hex(pages * PAGE) } })

const u64 = (value: number): string => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes.toString('hex')
}
const allow = (first: number, last: number): Op =>
  ioctl('i0', 'IOAS_ALLOW', {
    in: { ioas_id: 1, num_iovas: 1, allowed_iovas: 'bits+0' },
    poke: ['bits+0', u64(first) + u64(last)],
  })
const ranges: Op = ioctl('i0', 'IOAS_RANGES', {
  in: { ioas_id: 1, num_iovas: 4, allowed_iovas: 'bits+0' },
  poke: ['bits+0', '00'.repeat(64)],
  look: ['bits+0', 64],
})

export const iommufd: readonly Directed[] = [
  {
    title: 'a mapping that may go anywhere never takes the first page',
    ops: [...start, allow(0, 0x1fff), map(ANYWHERE, 0), map(ANYWHERE, 0), unmap(0x1000, 1), ranges],
  },
  {
    title: 'a hole of just the length is enough',
    ops: [
      ...[...start, allow(0x4000, 0x6fff), map(FIXED, 0x4000), map(FIXED, 0x6000)],
      ...[map(ANYWHERE, 0, 2), map(ANYWHERE, 0), map(ANYWHERE, 0), unmap(0x4000, 3)],
      ...[map(ANYWHERE, 0, 3, 'ram+0x4000'), map(ANYWHERE, 0, 3), map(ANYWHERE, 0, 2)],
    ],
  },
  {
    title: 'an address space is in use by what is attached to it',
    ops: [
      ...[...start, { op: 'open', into: 'd0', place: 'edu0', cdev: true } as const],
      ...[ioctl('d0', 'DEVICE_INFO'), ioctl('d0', 'BIND', { in: { iommufd: '@i0' } })],
      ...[
        map(FIXED, 0xfee00000),
        ioctl('d0', 'ATTACH', { in: { pt_id: 1 } }),
        unmap(0xfee00000, 1),
      ],
      ...[
        map(FIXED, 0x0),
        ioctl('d0', 'ATTACH', { in: { pt_id: 1 } }),
        ranges,
        map(FIXED, 0xfee00000),
      ],
      ...[ioctl('i0', 'DESTROY', { in: { id: 1 } }), ioctl('i0', 'DESTROY', { in: { id: 2 } })],
      ...[map(FIXED, 0x8000000000), map(FIXED, 0x0, 2), map(FIXED, 0x1000, 1, 'hole+0')],
      ...[ioctl('d0', 'DETACH'), ioctl('i0', 'DESTROY', { in: { id: 1 } })],
      ...[
        { op: 'close', fd: 'd0' } as const,
        unmap(0, 1),
        ioctl('i0', 'DESTROY', { in: { id: 1 } }),
      ],
    ],
  },
]
