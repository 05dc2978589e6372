import { mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate, eventfdSignal } from '../../src/os/eventfd.ts'
import { O_RDONLY, O_RDWR, POLLIN, pendingEvents, sys } from '../../src/os/libc.ts'

const directory = mkdtempSync(join(tmpdir(), 'vfiod-libc-'))
const FIONREAD = 0x541b
const F_GETFD = 1
const FD_CLOEXEC = 1

test('open answers a close-on-exec fd', async () => {
  const fd = await sys.open('/dev/null', O_RDWR)

  expect(sys.fcntl(fd, F_GETFD)).toBe(FD_CLOEXEC)
  expect(await sys.close(fd)).toBe(0)
})

test('open refuses a path with a NUL in it, which the kernel would see cut short: EINVAL', async () => {
  expect(await sys.open('/dev/null\0.txt', O_RDONLY)).toBe(-ERRNO.EINVAL)
  expect(sys.openSync('/dev/null\0.txt', O_RDONLY)).toBe(-ERRNO.EINVAL)
})

test('ioctl takes bytes by address and fills them in', async () => {
  const path = join(directory, 'fionread')
  writeFileSync(path, '12345')
  const fd = openSync(path, 'r')
  const count = new Uint32Array(1)

  const answer = await sys.ioctl(fd, FIONREAD, new Uint8Array(count.buffer))

  expect(answer).toBe(0)
  expect(count[0]).toBe(5)
})

test('ioctl takes the bytes of a view that starts inside its buffer', () => {
  const path = join(directory, 'view')
  writeFileSync(path, '123')
  const fd = openSync(path, 'r')
  const around = new Uint8Array(12).fill(0xff)

  sys.ioctlSync(fd, FIONREAD, around.subarray(4, 8))

  expect([...around]).toEqual([255, 255, 255, 255, 3, 0, 0, 0, 255, 255, 255, 255])
})

test('ioctl refuses address 0 where the kernel needs bytes: EFAULT', async () => {
  const path = join(directory, 'empty')
  writeFileSync(path, '')
  const fd = openSync(path, 'r')

  expect(await sys.ioctl(fd, FIONREAD, undefined)).toBe(-ERRNO.EFAULT)
})

test('pwrite and pread reach an offset beyond 4 GiB', async () => {
  const path = join(directory, 'sparse')
  writeFileSync(path, '')
  const fd = openSync(path, 'r+')
  const into = new Uint8Array(3)

  const written = await sys.pwrite(fd, Buffer.from('abc'), 0x1_0000_0001n)
  const readBack = await sys.pread(fd, into, 0x1_0000_0001n)

  expect([written, readBack, Buffer.from(into).toString()]).toEqual([3, 3, 'abc'])
})

test('write and read move the offset of the file', async () => {
  const path = join(directory, 'stream')
  writeFileSync(path, '')
  const fd = openSync(path, 'r+')

  await sys.write(fd, Buffer.from('ab'))
  await sys.write(fd, Buffer.from('cd'))

  expect(readFileSync(path, 'utf8')).toBe('abcd')
  expect(await sys.read(fd, new Uint8Array(4))).toBe(0)
})

test('dup answers another number for the same open file', () => {
  const fd = eventfdCreate()
  const twin = sys.dup(fd)

  eventfdSignal(twin)

  expect(twin).not.toBe(fd)
  expect(pendingEvents(fd, POLLIN)).toBe(POLLIN)
})

test('dup refuses an fd that is not open: EBADF', () => {
  expect(sys.dup(-1)).toBe(-ERRNO.EBADF)
})
