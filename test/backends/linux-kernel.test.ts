/** The port over this machine's kernel, with files that every Linux has. VFIO is for test/kernel. */

import { mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { linuxKernel } from '../../src/backends/linux/kernel.ts'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate, eventfdRead, eventfdSignal } from '../../src/os/eventfd.ts'

const O_RDWR = 2
const FIONREAD = 0x541b
const TCGETS = 0x5401

const kernel = linuxKernel()
const directory = mkdtempSync(join(tmpdir(), 'vfiod-linux-'))
const file = (name: string, content: string): string => {
  const path = join(directory, name)
  writeFileSync(path, content)
  return path
}

describe('the linux backend', () => {
  test('reads, writes and closes what it opened', async () => {
    const fd = await kernel.open(file('rw', 'abcdef'), O_RDWR)
    const [head, tail] = [new Uint8Array(2), new Uint8Array(8)]

    const answers = [
      await kernel.pwrite(fd, Buffer.from('XY'), 2n),
      await kernel.pread(fd, head, 2n),
      await kernel.write(fd, Buffer.from('Z')),
      await kernel.read(fd, tail),
      await kernel.close(fd),
      await kernel.close(fd),
    ]

    expect(answers).toEqual([2, 2, 1, 5, 0, -ERRNO.EBADF])
    expect(Buffer.from(head).toString()).toBe('XY')
    expect(Buffer.from(tail.subarray(0, 5)).toString()).toBe('bXYef')
  })

  test('passes an ioctl on, and what it answers back', async () => {
    const fd = await kernel.open(file('ioctl', '12345'), O_RDWR)
    const count = new Uint32Array(1)

    expect(await kernel.ioctl(fd, FIONREAD, new Uint8Array(count.buffer))).toBe(0)
    expect(count[0]).toBe(5)
    expect(await kernel.ioctl(fd, TCGETS, 0)).toBe(-ERRNO.ENOTTY)
    expect(await kernel.ioctl(-1, TCGETS, undefined)).toBe(-ERRNO.EBADF)
  })

  test('exports an fd that outlives its own', async () => {
    const fd = eventfdCreate()

    const exported = await kernel.exportFd(fd)
    await kernel.close(fd)
    eventfdSignal(exported)

    expect(eventfdRead(exported)).toBe(1n)
    expect(await kernel.exportFd(-1)).toBe(-ERRNO.EBADF)
  })

  test('refuses to open what is not there: ENOENT', async () => {
    expect(await kernel.open('/dev/vfio/no-such-group', O_RDWR)).toBe(-ERRNO.ENOENT)
  })

  test('reads files, directories and links, or answers why not', async () => {
    const path = file('content', 'hello')
    symlinkSync('content', join(directory, 'link'))

    expect(Buffer.from((await kernel.readFile(path)) as Uint8Array).toString()).toBe('hello')
    expect(await kernel.readDir(directory)).toContain('link')
    expect(await kernel.readLink(join(directory, 'link'))).toBe('content')
    expect(await kernel.readFile(join(directory, 'none'))).toBe(-ERRNO.ENOENT)
    expect(await kernel.readFile(directory)).toBe(-ERRNO.EISDIR)
    expect(await kernel.readDir(path)).toBe(-ERRNO.ENOTDIR)
    expect(await kernel.readLink(path)).toBe(-ERRNO.EINVAL)
  })

  test('refuses a path with a NUL in it: EINVAL', async () => {
    expect(await kernel.readFile(`${directory}/a\0b`)).toBe(-ERRNO.EINVAL)
    expect(await kernel.writeFile(`${directory}/a\0b`, 'x')).toBe(-ERRNO.EINVAL)
  })

  test('writes a file in one piece, and neither makes nor truncates it', async () => {
    const path = file('sysfs', 'abcdef')

    expect(await kernel.writeFile(path, 'XY')).toBe(2)
    expect(readFileSync(path, 'utf8')).toBe('XYcdef')
    expect(await kernel.writeFile(join(directory, 'none'), 'x')).toBe(-ERRNO.ENOENT)
  })

  test('answers what the write was answered, not the open: EINVAL', async () => {
    // Takes numbers from -1000 to 1000.
    expect(await kernel.writeFile('/proc/self/oom_score_adj', 'none')).toBe(-ERRNO.EINVAL)
  })
})
