/**
 * What one request costs on the simulator while an address space has so many mappings. A process
 * of its own for each number of them, so that each has a heap of its own: `sim.mjs` starts it.
 *
 *   node bench/sim-mappings.mjs type1|iommufd MAPPINGS SAMPLES ROUNDS
 *
 * Prints microseconds of CPU per request as JSON: the median of the rounds for each kind of request.
 */
import {
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from '../dist/abi/container.js'
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
} from '../dist/abi/device.js'
import { VFIO_GROUP_SET_CONTAINER } from '../dist/abi/group.js'
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  iommu_ioas_alloc,
  iommu_ioas_map,
  iommu_ioas_unmap,
} from '../dist/abi/iommufd.js'
import { createSim } from '../dist/backends/sim/sim.js'
import { defaultMachine } from '../dist/backends/sim/spec/default-machine.js'
import { ERRNO } from '../dist/base/errno.js'
import { tuneCollector } from '../dist/os/limits.js'
import { allocPages } from '../dist/os/memory.js'

const PAGE = 4096n
const BASE = 0x1_0000_0000n
const EDU = '0000:00:04.0'
const O_RDWR = 2

const memory = allocPages(Number(PAGE))

const must = (answer, what) => {
  if (answer < 0) throw new Error(`Cannot ${what}: errno ${-answer}`)
  return answer
}

/** Every other page has a mapping, so that each stays one. */
const iovaOf = (index) => BASE + BigInt(index) * 2n * PAGE

const simOf = (mappings) => {
  const functions = defaultMachine.functions.map((fn) =>
    fn.address === EDU ? { ...fn, boundDriver: 'vfio-pci' } : fn,
  )
  const spec = { ...defaultMachine, functions, mdevs: [], dmaEntryLimit: mappings + 1 }
  return createSim({ ...spec, memlockBytes: null }, { time: 'poked' }).kernel
}

const type1 = async (mappings) => {
  const kernel = simOf(mappings)
  const container = must(await kernel.open('/dev/vfio/vfio', O_RDWR), 'open a container')
  const group = must(await kernel.open('/dev/vfio/3', O_RDWR), 'open the group')
  const fd = new Uint8Array(new Int32Array([container]).buffer)
  must(await kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER.number, fd), 'set the container')
  must(await kernel.ioctl(container, VFIO_SET_IOMMU.number, VFIO_TYPE1v2_IOMMU), 'set the IOMMU')
  const range = { size: PAGE, vaddr: memory.address }
  const map = vfio_iommu_type1_dma_map
  const unmap = vfio_iommu_type1_dma_unmap
  return {
    map: (iova) => {
      const arg = map.encode({ argsz: map.size, flags: 3, iova, ...range })
      return kernel.ioctl(container, VFIO_IOMMU_MAP_DMA.number, arg)
    },
    unmap: (iova) => {
      const arg = unmap.encode({ argsz: unmap.size, iova, size: PAGE })
      return kernel.ioctl(container, VFIO_IOMMU_UNMAP_DMA.number, arg)
    },
  }
}

const iommufd = async (mappings) => {
  const kernel = simOf(mappings)
  const fd = must(await kernel.open('/dev/iommu', O_RDWR), 'open an iommufd')
  const alloc = iommu_ioas_alloc.encode({ size: iommu_ioas_alloc.size })
  must(await kernel.ioctl(fd, IOMMU_IOAS_ALLOC.number, alloc), 'allocate an ioas')
  const ioas_id = iommu_ioas_alloc.decode(alloc).out_ioas_id
  const [cdev] = await kernel.readDir(`/sys/bus/pci/devices/${EDU}/vfio-dev`)
  const device = must(await kernel.open(`/dev/vfio/devices/${cdev}`, O_RDWR), 'open the cdev')
  const bind = vfio_device_bind_iommufd
  const bound = bind.encode({ argsz: bind.size, iommufd: fd })
  must(await kernel.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD.number, bound), 'bind')
  const attach = vfio_device_attach_iommufd_pt
  const attached = attach.encode({ argsz: attach.size, pt_id: ioas_id })
  must(await kernel.ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT.number, attached), 'attach')
  const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE
  const map = iommu_ioas_map
  const unmap = iommu_ioas_unmap
  const what = { ioas_id, user_va: memory.address, length: PAGE }
  return {
    map: (iova) => {
      const arg = map.encode({ size: map.size, flags, iova, ...what })
      return kernel.ioctl(fd, IOMMU_IOAS_MAP.number, arg)
    },
    unmap: (iova) => {
      const arg = unmap.encode({ size: unmap.size, ioas_id, iova, length: PAGE })
      return kernel.ioctl(fd, IOMMU_IOAS_UNMAP.number, arg)
    },
  }
}

/** All of 0..count-1, in an order that jumps about and is the same each time. */
function* scattered(count) {
  // A generator of all numbers below a power of two: odd increment, multiplier 1 more than 4n.
  const modulus = 2 ** Math.max(2, Math.ceil(Math.log2(count)))
  for (let state = 1, left = modulus; left > 0; left -= 1) {
    state = (state * 1_664_525 + 1_013_904_223) % modulus
    if (state < count) yield state
  }
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1]

/** Microseconds of CPU for each, the collector's threads included. */
const timed = async (indexes, act) => {
  const before = process.cpuUsage()
  for (const index of indexes) await act(index)
  const { user, system } = process.cpuUsage(before)
  return (user + system) / indexes.length
}

const [backend, ...numbers] = process.argv.slice(2)
const [mappings, samples, rounds] = numbers.map(Number)
tuneCollector()
const { map, unmap } = await (backend === 'type1' ? type1 : iommufd)(mappings)
const order = [...scattered(mappings)]
for (const index of order) must(await map(iovaOf(index)), 'map')

const figures = { map: [], unmap: [], find: [] }
for (let round = 0; round <= rounds; round += 1) {
  const first = (round * samples) % mappings
  const some = Array.from({ length: samples }, (_, n) => order[(first + n) % mappings])
  const unique = [...new Set(some)]
  const found = await timed(some, async (index) => {
    if ((await map(iovaOf(index))) !== -ERRNO.EEXIST) throw new Error('It is not mapped')
  })
  const unmapped = await timed(unique, async (index) => must(await unmap(iovaOf(index)), 'unmap'))
  const mapped = await timed(unique, async (index) => must(await map(iovaOf(index)), 'map again'))
  if (round === 0) continue
  figures.find.push(found)
  figures.unmap.push(unmapped)
  figures.map.push(mapped)
}
const result = Object.entries(figures).map(([name, values]) => [name, median(values)])
console.log(JSON.stringify(Object.fromEntries(result)))
