/**
 * The port over the kernel that this process runs on. Every call is one system call; nothing is
 * checked or decided here.
 */

import { readdir, readFile, readlink } from 'node:fs/promises'
import { ERRNO } from '../../base/errno.ts'
import type { Kernel } from '../../kernel/port.ts'
import { O_WRONLY, sys } from '../../os/libc.ts'
import { mapFd, unmapSegment } from '../../os/memory.ts'

/** The value, or what the kernel said: node:fs has it, already negative, as `errno`. */
const answer = async <T>(value: Promise<T>): Promise<T | number> => {
  try {
    return await value
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -ERRNO.EINVAL
  }
}

export const linuxKernel = (): Kernel => ({
  open: (path, flags) => sys.open(path, flags),
  close: (fd) => sys.close(fd),
  ioctl: (fd, request, arg) => sys.ioctl(fd, request, arg),
  pread: (fd, into, offset) => sys.pread(fd, into, offset),
  pwrite: (fd, from, offset) => sys.pwrite(fd, from, offset),
  read: (fd, into) => sys.read(fd, into),
  write: (fd, from) => sys.write(fd, from),
  mmap: (fd, request) => mapFd(fd, request),
  munmap: (segment) => unmapSegment(segment),
  exportFd: async (fd) => sys.dup(fd),

  readFile: (path) => answer(readFile(path)),
  // Neither created nor truncated, and written in one piece: in sysfs each write is a command.
  writeFile: async (path, data) => {
    const fd = await sys.open(path, O_WRONLY)
    if (fd < 0) return fd
    const written = await sys.write(fd, Buffer.from(data))
    await sys.close(fd)
    return written
  },
  readDir: (path) => answer(readdir(path)),
  readLink: (path) => answer(readlink(path)),
})
