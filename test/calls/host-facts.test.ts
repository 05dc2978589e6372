/** Where facts about uses of the host come from: trees of files as kernels of several kinds show them. */

import { describe, expect, test } from 'vitest'
import { attribute, directory, link, type Node, Vfs } from '../../src/backends/sim/file/vfs.ts'
import { hostFacts } from '../../src/kernel/host-facts.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import type { HostDevice } from '../../src/kernel/sysfs.ts'
import { usesOf } from '../../src/rules/host-use.ts'

const NAME = '0000:01:00.0'
const AT = `/sys/devices/pci0000:00/0000:00:02.0/${NAME}`

/** A file's text, `-> TARGET` for a link, or an empty directory. */
type Files = Readonly<Record<string, string>>

const treeOf = (files: Files): Node => {
  const below = (path: string): Record<string, () => Node> => {
    const names = Object.keys(files)
      .filter((file) => file.startsWith(`${path}/`))
      .map((file) => file.slice(path.length + 1).split('/')[0] ?? '')
    return Object.fromEntries(
      [...new Set(names)]
        .filter((name) => name !== '')
        .map((name) => [name, () => nodeAt(`${path}/${name}`)]),
    )
  }
  const nodeAt = (path: string): Node => {
    const text = files[path]
    if (text === undefined) return directory(() => below(path))
    return text.startsWith('-> ') ? link(text.slice(3)) : attribute(() => text)
  }
  return directory(() => below(''))
}

const MOUNTS = (rows: string) => ({
  '/proc/1/mountinfo': rows,
  '/proc/swaps': 'Filename Type Size Used Priority\n',
  '/proc/1/net/dev': '',
})

const PCI: HostDevice = {
  name: NAME,
  bus: 'pci',
  busName: 'pci',
  group: 1,
  driver: 'native',
  pci: { vendor: 1, device: 1, class: 0x03_0000 },
  mdevType: undefined,
  physicalFunction: undefined,
  virtualFunctions: [],
  resets: { byItself: false, byBus: false },
}

const found = async (files: Files): Promise<string[]> => {
  const kernel = new Vfs(treeOf(files) as ConstructorParameters<typeof Vfs>[0])
  const facts = await hostFacts(kernel as unknown as Kernel, [PCI])
  return usesOf(facts, NAME).map((use) => use.found)
}

describe('disks', () => {
  test('of NVMe that several controllers reach are found by their subsystem', async () => {
    const head = '/sys/devices/virtual/nvme-subsystem/nvme-subsys0'
    const uses = await found({
      ...MOUNTS('25 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n'),
      '/sys/class/block/nvme0n1p1': `-> ${head}/nvme0n1/nvme0n1p1`,
      [`${head}/nvme0n1/nvme0n1p1/dev`]: '259:1\n',
      [`${head}/nvme0`]: `-> ${AT}/nvme/nvme0`,
      [`${AT}/nvme/nvme0/model`]: 'disk\n',
      '/sys/class/nvme-subsystem/nvme-subsys0': `-> ${head}`,
    })

    expect(uses).toEqual(['nvme0n1p1 is mounted at /'])
  })

  test('under a loop device are in use with it', async () => {
    const loop = '/sys/devices/virtual/block/loop0'
    const uses = await found({
      ...MOUNTS('25 1 7:0 / /srv rw - ext4 /dev/loop0 rw\n'),
      '/sys/class/block/sda': `-> ${AT}/ata1/block/sda`,
      [`${AT}/ata1/block/sda/dev`]: '8:0\n',
      '/sys/class/block/loop0': `-> ${loop}`,
      [`${loop}/dev`]: '7:0\n',
      [`${loop}/loop/backing_file`]: '/dev/sda\n',
    })

    expect(uses).toEqual(['sda is under loop0, which is mounted at /srv'])
  })

  test('of a file system on several disks, which has another number, are found by its source', async () => {
    const uses = await found({
      ...MOUNTS(
        '25 1 0:40 /@ / rw - btrfs /dev/mapper/crypt rw\n26 1 0:41 / /data rw - bcachefs /dev/sda:/dev/sdb rw\n',
      ),
      '/sys/class/block/sda': `-> ${AT}/ata1/block/sda`,
      [`${AT}/ata1/block/sda/dev`]: '8:0\n',
      [`${AT}/ata1/block/sda/holders/dm-0`]: '-> /sys/devices/virtual/block/dm-0',
      '/sys/class/block/dm-0': '-> /sys/devices/virtual/block/dm-0',
      '/sys/devices/virtual/block/dm-0/dev': '253:0\n',
      '/sys/devices/virtual/block/dm-0/dm/name': 'crypt\n',
    })

    expect(uses).toEqual([
      'sda is mounted at /data',
      'sda is under dm-0 (crypt), which is mounted at /',
    ])
  })

  test('of a btrfs are found by what it lists, also where another one is its source', async () => {
    const uses = await found({
      ...MOUNTS('25 1 0:40 / /data rw - btrfs /dev/sdz rw\n'),
      '/sys/class/block/sda': `-> ${AT}/ata1/block/sda`,
      [`${AT}/ata1/block/sda/dev`]: '8:0\n',
      '/sys/class/block/sdz': '-> /sys/devices/pci0000:00/0000:00:05.0/ata2/block/sdz',
      '/sys/devices/pci0000:00/0000:00:05.0/ata2/block/sdz/dev': '8:16\n',
      '/sys/fs/btrfs/5d0c/devices/sda': `-> ${AT}/ata1/block/sda`,
      '/sys/fs/btrfs/5d0c/devices/sdz': '-> /sys/class/block/sdz',
    })

    expect(uses).toEqual(['sda is mounted at /data'])
  })

  test('of a btrfs are found through what stands on them', async () => {
    const volume = (name: string, label: string): Files => ({
      [`/sys/class/block/${name}`]: `-> /sys/devices/virtual/block/${name}`,
      [`/sys/devices/virtual/block/${name}/dev`]: '253:0\n',
      [`/sys/devices/virtual/block/${name}/dm/name`]: `${label}\n`,
      [`/sys/fs/btrfs/5d0c/devices/${name}`]: `-> /sys/devices/virtual/block/${name}`,
    })
    const uses = await found({
      ...MOUNTS('25 1 0:40 / /data rw - btrfs /dev/mapper/first rw\n'),
      '/sys/class/block/sda': `-> ${AT}/ata1/block/sda`,
      [`${AT}/ata1/block/sda/dev`]: '8:0\n',
      [`${AT}/ata1/block/sda/holders/dm-1`]: '-> /sys/devices/virtual/block/dm-1',
      ...volume('dm-0', 'first'),
      ...volume('dm-1', 'second'),
    })

    expect(uses).toEqual(['sda is under dm-1 (second), which is mounted at /data'])
  })

  test('of a ZFS pool are found by their label, where the pool is imported', async () => {
    const disk = (pool: string): Files => ({
      '/sys/class/block/sda1': `-> ${AT}/ata1/block/sda/sda1`,
      [`${AT}/ata1/block/sda/sda1/dev`]: '8:1\n',
      '/run/udev/data/b8:1': `S:disk/by-id/x\nE:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=${pool}\n`,
    })
    const mounted = MOUNTS('25 1 0:26 / / rw - zfs rpool/ROOT/one rw\n')
    const imported = { '/proc/spl/kstat/zfs/tank/state': 'ONLINE\n' }

    expect(await found({ ...mounted, ...disk('rpool') })).toEqual([
      'sda1 is in the ZFS pool rpool, which is mounted at /',
    ])
    expect(await found({ ...mounted, ...imported, ...disk('tank') })).toEqual([
      'sda1 is in the ZFS pool tank, which is imported',
    ])
    expect(await found({ ...mounted, ...imported, ...disk('other') })).toEqual([])
  })

  test('that only another mount namespace has mounted are found there', async () => {
    const uses = await found({
      ...MOUNTS('25 1 0:30 / / rw - overlay root rw\n'),
      '/proc/1/ns/mnt': '-> mnt:[1]',
      '/proc/812/ns/mnt': '-> mnt:[2]',
      '/proc/812/mountinfo':
        '25 1 8:0 / /data rw - xfs /dev/sda rw\n26 1 8:0 /a /a rw - xfs /dev/sda rw\n',
      '/proc/813/ns/mnt': '-> mnt:[3]',
      '/proc/813/mountinfo': '25 1 8:0 / /copy rw - xfs /dev/sda rw\n',
      '/sys/class/block/sda': `-> ${AT}/ata1/block/sda`,
      [`${AT}/ata1/block/sda/dev`]: '8:0\n',
    })

    expect(uses).toEqual(['sda is mounted at /a and 1 more place'])
  })

  test('are not said to be free of swap where /proc hides it', async () => {
    const disk = {
      '/proc/1/mountinfo': '',
      '/proc/1/net/dev': '',
      '/sys/class/block/sda': `-> ${AT}/ata1/block/sda`,
      [`${AT}/ata1/block/sda/dev`]: '8:0\n',
    }

    expect(await found(disk)).toEqual([
      'it cannot be seen whether a disk of it is swap (/proc/swaps: hidden)',
    ])
    expect(await found({ ...disk, '/proc/filesystems': 'ext4\n' })).toEqual([])
  })
})

describe('folders that a machine monitor shares', () => {
  const virtio = (driver: string, more: Files): Files => ({
    '/sys/bus/virtio/devices/virtio0': `-> ${AT}/virtio0`,
    [`${AT}/virtio0/driver`]: `-> /sys/bus/virtio/drivers/${driver}`,
    [`/sys/bus/virtio/drivers/${driver}/uevent`]: '',
    ...more,
  })

  test('by 9p are found by their tag', async () => {
    const mounts = MOUNTS('25 1 0:20 / /host rw - 9p rootfs rw\n26 1 0:21 / /job rw - 9p job rw\n')
    const tag = (text: string) => virtio('9pnet_virtio', { [`${AT}/virtio0/mount_tag`]: text })

    expect(await found({ ...mounts, ...tag('job') })).toEqual([
      'the shared folder "job" is mounted at /job',
    ])
    expect(await found({ ...mounts, ...tag('rootfs\0') })).toEqual([
      'the shared folder "rootfs" is mounted at /host',
    ])
    expect(await found({ ...mounts, ...tag('other') })).toEqual([])
  })

  test('by virtiofs are found by the tag, or all of them count where the kernel says none', async () => {
    const mounts = MOUNTS('25 1 0:20 / / rw - virtiofs root rw\n')
    const instance = (tag: string) => ({
      '/sys/fs/virtiofs/1/tag': `${tag}\n`,
      '/sys/fs/virtiofs/1/device': `-> ${AT}/virtio0`,
    })

    expect(await found({ ...mounts, ...virtio('virtiofs', {}) })).toEqual([
      'the shared folder "virtio0" is mounted at /',
    ])
    expect(await found({ ...mounts, ...virtio('virtiofs', instance('root')) })).toEqual([
      'the shared folder "root" is mounted at /',
    ])
    expect(await found({ ...mounts, ...virtio('virtiofs', instance('data')) })).toEqual([])
  })
})

describe('networks', () => {
  test('are read as Linux writes them, without what every interface has', async () => {
    const uses = await found({
      ...MOUNTS(''),
      '/sys/class/net/enp1s0': `-> ${AT}/net/enp1s0`,
      [`${AT}/net/enp1s0/flags`]: '0x1003\n',
      [`${AT}/net/enp1s0/upper_enp1s0.7`]: '-> /sys/devices/virtual/net/enp1s0.7',
      '/proc/1/net/route':
        'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n' +
        'enp1s0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n' +
        'enp1s0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n' +
        '*\t00C0A8C0\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0\n',
      '/proc/1/net/fib_trie':
        'Local:\n  +-- 0.0.0.0/0 3 0 5\n     +-- 127.0.0.0/8 2 0 2\n           |-- 127.0.0.1\n              /32 host LOCAL\n' +
        '        |-- 172.17.0.2\n           /32 host LOCAL\n     |-- 172.17.255.255\n        /32 link BROADCAST\n',
      '/proc/1/net/if_inet6':
        'fe80000000000000505400fffe123456 02 40 20 80   enp1s0\n' +
        '00000000000000000000000000000001 01 80 10 80       lo\n' +
        'fd000000000000000000000000000002 02 40 00 80   enp1s0\n',
      '/proc/1/net/ipv6_route':
        'fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001   enp1s0\n',
    })

    expect(uses).toEqual([
      'enp1s0 is under enp1s0.7',
      'enp1s0 is up and has the addresses 172.17.0.2/16, fd00::2/64 and the default route',
    ])
  })

  test('count by their routes where an interface has no address', async () => {
    const uses = await found({
      ...MOUNTS(''),
      '/sys/class/net/eth0': `-> ${AT}/net/eth0`,
      [`${AT}/net/eth0/flags`]: '0x1003\n',
      '/proc/1/net/ipv6_route':
        '20010db8000000000000000000000000 20 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00000001     eth0\n' +
        'ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n',
    })

    expect(uses).toEqual(['eth0 is up and has the route to 2001:db8::/32'])
  })
})

describe('the console', () => {
  const console = (title: string, bind: string): Files => ({
    ...MOUNTS(''),
    '/sys/class/vtconsole/vtcon0/name': '(S) dummy device\n',
    '/sys/class/vtconsole/vtcon0/bind': '0\n',
    '/sys/class/vtconsole/vtcon1/name': `${title}\n`,
    '/sys/class/vtconsole/vtcon1/bind': `${bind}\n`,
    [`${AT}/boot_vga`]: '1\n',
    [`/sys/bus/pci/devices/${NAME}`]: `-> ${AT}`,
  })
  const firmware = {
    '/sys/class/graphics/fb0': '-> /sys/devices/platform/efi-framebuffer.0/graphics/fb0',
    '/sys/devices/platform/efi-framebuffer.0/graphics/fb0/name': 'EFI VGA\n',
  }

  test('that is text on a VGA is on the boot display', async () => {
    expect(await found(console('(S) VGA+', '1'))).toEqual([`the console of the host is on ${NAME}`])
    expect(await found(console('(S) VGA+', '0'))).toEqual([])
  })

  test('on a framebuffer of the firmware is on the boot display', async () => {
    expect(await found({ ...console('(M) frame buffer device', '1'), ...firmware })).toEqual([
      `the console of the host is on ${NAME}`,
    ])
    expect(await found({ ...console('(M) frame buffer device', '0'), ...firmware })).toEqual([])
  })

  test('is on the first framebuffer, and not on the others', async () => {
    const other = '/sys/devices/pci0000:00/0000:00:03.0/graphics/fb0'
    const own = (name: string) => ({ [`/sys/class/graphics/${name}`]: `-> ${AT}/graphics/${name}` })
    const title = '(M) frame buffer device'

    expect(await found({ ...console(title, '1'), ...own('fb0'), ...own('fb1') })).toEqual([
      'the console of the host is on fb0',
    ])
    expect(
      await found({
        ...console(title, '1'),
        ...own('fb1'),
        '/sys/class/graphics/fb0': `-> ${other}`,
      }),
    ).toEqual([])
  })
})
