/**
 * The kernel under the bench's own vfiod: the simulator, with what makes a real one slow put back.
 *
 * - A session has as many bytes as are asked for, where the simulated device has 96. They are read
 *   from and written to a memfd, by the same calls on the same thread pool as of a real device.
 * - A map of a large range first makes the kernel fault in every page of it, which is most of what
 *   pinning costs, in one call that sleeps on the thread pool as VFIO_IOMMU_MAP_DMA would.
 */
import { VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map } from '../dist/abi/container.js'
import { bind, callAsync } from '../dist/os/async-call.js'
import { sys } from '../dist/os/libc.js'
import { memfdCreate } from '../dist/os/memory.js'

const MADV_POPULATE_WRITE = 23

/** From here on a map sleeps. */
const BIG_MAP = 1n << 28n

/** No read or write is longer: a message has at most this many bytes. */
const SOURCE_BYTES = 4 << 20

const madvise = bind('madvise', 'int', ['intptr_t', 'size_t', 'int'])

const populate = async (arg) => {
  const { vaddr, size } = vfio_iommu_type1_dma_map.decode(arg)
  return size < BIG_MAP ? 0 : callAsync(madvise, Number(vaddr), Number(size), MADV_POPULATE_WRITE)
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
  /** Bytes that are left to read, by data_fd. */
  const left = new Map()

  return {
    ...Object.fromEntries(UNCHANGED.map((name) => [name, (...args) => simulator[name](...args)])),

    async ioctl(fd, request, arg) {
      const populated = request === VFIO_IOMMU_MAP_DMA.number ? await populate(arg) : 0
      return populated < 0 ? populated : simulator.ioctl(fd, request, arg)
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
