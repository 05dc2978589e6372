/**
 * The kernel under those daemons of the bench that are to be slow: the simulator, with what makes a real one slow put back.
 *
 * - A session has as many bytes as are asked for, where the simulated device has 96. They are read
 *   from and written to a memfd, by the same calls on the same thread pool as of a real device.
 * - A map of a large range first makes the kernel fault in and fill every page of it, which is most
 *   of what pinning costs, in calls that sleep on the thread pool as VFIO_IOMMU_MAP_DMA would. They
 *   are reads of /dev/zero: MADV_POPULATE_WRITE would hold the lock of the address space all along,
 *   where pinning gives it back every 2 MiB.
 */
import { VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map } from '../dist/abi/container.js'
import { bind, callAsync } from '../dist/os/async-call.js'
import { O_RDONLY, sys } from '../dist/os/libc.js'
import { memfdCreate } from '../dist/os/memory.js'

/** From here on a map sleeps. */
const BIG_MAP = 1n << 28n

/** Of one such read; the kernel's own maximum is just below 2 GiB. */
const READ_BYTES = 2 ** 30

/** No read or write of a session is longer: a message has at most this many bytes. */
const SOURCE_BYTES = 4 << 20

/** By address, for no Buffer is that long. */
const readTo = bind('read', 'long', ['int', 'intptr_t', 'size_t'])

const fillPages = async (zero, arg) => {
  const { vaddr, size } = vfio_iommu_type1_dma_map.decode(arg)
  if (size < BIG_MAP) return 0
  const last = Number(vaddr + size)
  for (let at = Number(vaddr); at < last; ) {
    const filled = await callAsync(readTo, zero, at, Math.min(READ_BYTES, last - at))
    if (filled <= 0) return filled
    at += filled
  }
  return 0
}

const UNCHANGED = [
  'open',
  'pread',
  'pwrite',
  'exportFd',
  'readFile',
  'writeFile',
  'readDir',
  'readLink',
]

export const benchKernel = (simulator, { sessionBytes }) => {
  const source = memfdCreate('vfiod-bench', BigInt(SOURCE_BYTES))
  const zero = sys.openSync('/dev/zero', O_RDONLY)
  /** Bytes that are left to read, by data_fd. */
  const left = new Map()

  return {
    ...Object.fromEntries(UNCHANGED.map((name) => [name, (...args) => simulator[name](...args)])),

    async ioctl(fd, request, arg) {
      const filled = request === VFIO_IOMMU_MAP_DMA.number ? await fillPages(zero, arg) : 0
      return filled < 0 ? filled : simulator.ioctl(fd, request, arg)
    },

    async read(fd, into) {
      const rest = left.get(fd) ?? sessionBytes
      const length = Math.min(rest, into.length)
      left.set(fd, rest - length)
      return length === 0 ? 0 : sys.pread(source, into.subarray(0, length), 0n)
    },

    write: (_fd, from) => sys.pwrite(source, from, 0n),

    close(fd) {
      left.delete(fd)
      return simulator.close(fd)
    },
  }
}
