/** Where iommufd puts what may go anywhere, and what keeps an address space in use. */

import { bySecond, hex, ioctl, kill, open, setIommu, spawn } from '../areas/area.ts'
import type { Op } from '../operation.ts'
import { type Directed, locked, PAGE } from './steps.ts'

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

const attach: Op = ioctl('d0', 'ATTACH', { in: { pt_id: 1 } })
const bound: readonly Op[] = [
  { op: 'open', into: 'd0', place: 'edu0', cdev: true },
  ioctl('d0', 'BIND', { in: { iommufd: '@i0' } }),
]
const copy = (from: number, to: number, pages: number): Op =>
  ioctl('i0', 'IOAS_COPY', {
    in: {
      ...{ flags: FIXED, dst_ioas_id: 1, src_ioas_id: 1, length: hex(pages * PAGE) },
      ...{ dst_iova: hex(to), src_iova: hex(from) },
    },
  })
const compatMap = (iova: number, pages: number): Op =>
  ioctl('i0', 'MAP', {
    in: { flags: 3, vaddr: `ram+${hex(iova)}`, iova: hex(iova), size: hex(pages * PAGE) },
  })

/** IOMMU_OPTION_RLIMIT_MODE: RLIMIT_MEMLOCK counts for each process, not for its user. */
const limitEach: Op = ioctl('i0', 'OPTION', { in: { option_id: 0, op: 0, val64: '0x1' } })

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
  {
    title: 'pages are pinned from the process that mapped them, whoever attaches',
    ops: [
      ...[...start, ...bound, spawn('i0', 'd0'), bySecond(map(FIXED, 0x0, 2)), map(FIXED, 0x8000)],
      ...[attach, bySecond(ioctl('d0', 'DETACH')), bySecond(attach), locked, bySecond(locked)],
      ...[unmap(0x0, 2), bySecond(unmap(0x8000, 1)), bySecond(map(FIXED, 0x0, 1, 'hole+0'))],
      ...[map(FIXED, 0x0, 1, 'other+0'), bySecond(map(FIXED, 0x0, 1, 'other+0'))],
    ],
  },
  {
    title: 'addresses of a process that is gone cannot be pinned any more',
    ops: [
      ...[...start, ...bound, spawn('i0', 'd0'), bySecond(map(FIXED, 0x0, 2)), kill, attach],
      ...[copy(0x0, 0x10000, 2), attach, unmap(0x0, 2), attach, unmap(0x10000, 2), attach],
      ...[spawn('i0'), bySecond(map(FIXED, 0x0, 4)), kill, copy(0x0, 0x10000, 4)],
      ...[copy(0x1000, 0x20000, 1), unmap(0x0, 4), ioctl('d0', 'DETACH'), attach],
      ...[unmap(0x10000, 4), attach, unmap(0x20000, 1), attach],
    ],
  },
  {
    title: 'an iommufd as a container charges who maps, and lives while anyone has it',
    ops: [
      ...[open('i0', 'iommufd'), open('g1', 'edu1')],
      ...[ioctl('g1', 'SET_CONTAINER', { in: { fd: '@i0' } }), setIommu('i0', 3)],
      ...[{ op: 'device', fd: 'g1', place: 'edu1', into: 'd2' } as const, spawn('i0')],
      ...[compatMap(0x0, 2), bySecond(compatMap(0x8000, 3)), locked, bySecond(locked)],
      ...[{ op: 'close', fd: 'i0' } as const, bySecond(compatMap(0x10000, 1)), kill],
      ...[locked, { op: 'close', fd: 'd2' } as const, locked, open('g1', 'edu1')],
    ],
  },
  {
    title: 'all processes of a user have one limit, whoever has pinned',
    lockPages: 16,
    ops: [
      ...[...start, ...bound, attach, spawn('i0'), map(FIXED, 0x0, 10)],
      ...[bySecond(map(FIXED, 0x10000, 10)), bySecond(map(FIXED, 0x10000, 6)), locked],
      ...[map(FIXED, 0x20000, 1), unmap(0x10000, 6), kill, map(FIXED, 0x20000, 6)],
    ],
  },
  {
    title: 'each process has a limit of its own where the iommufd says so',
    lockPages: 16,
    ops: [
      ...[open('i0', 'iommufd'), limitEach, ioctl('i0', 'IOAS_ALLOC'), ...bound, attach],
      ...[spawn('i0'), map(FIXED, 0x0, 10), bySecond(map(FIXED, 0x10000, 16)), locked],
      ...[bySecond(locked), bySecond(map(FIXED, 0x20000, 1)), map(FIXED, 0x20000, 7)],
      ...[map(FIXED, 0x20000, 6), bySecond(unmap(0x0, 10)), locked, kill, unmap(0x10000, 16)],
      ...[locked, limitEach],
    ],
  },
]
