/**
 * Who has a group or a device open outside the daemon. Only /proc says it, which costs a look at every
 * fd of the host: one look serves everyone that asks while it runs, and a while after.
 */

import { vfioHolders } from '../../kernel/holders.ts'
import type { Holder } from '../../kernel/host-looks.ts'
import type { Kernel } from '../../kernel/port.ts'
import { cdevOf } from '../../kernel/sysfs.ts'

/** A look is good for this long at least, and for so many times as long as it took. */
const FRESH_MS = 500
const SHARE = 20

/** The files by which a group and its devices are opened. */
export async function nodesOf(
  kernel: Kernel,
  group: number,
  devices: readonly string[],
): Promise<string[]> {
  const nodes = await kernel.readDir('/dev/vfio')
  const noIommu = `noiommu-${group}`
  // Without an IOMMU there is no cdev.
  if (typeof nodes !== 'number' && nodes.includes(noIommu)) return [`/dev/vfio/${noIommu}`]
  const cdevs = await Promise.all(devices.map((name) => cdevOf(kernel, name)))
  return [`/dev/vfio/${group}`, ...cdevs.filter((cdev) => cdev !== undefined)]
}

export class OutsideHolders {
  readonly #kernel: Kernel
  #look: Promise<readonly Holder[]> | undefined
  #freshUntil = 0

  constructor(kernel: Kernel) {
    this.#kernel = kernel
  }

  /** Processes besides this one that have any of the files open. */
  async of(paths: readonly string[]): Promise<Holder[]> {
    const holders = await this.#all()
    return holders.filter(({ pid, path }) => pid !== process.pid && paths.includes(path))
  }

  #all(): Promise<readonly Holder[]> {
    if (this.#look !== undefined && performance.now() < this.#freshUntil) return this.#look
    const start = performance.now()
    this.#freshUntil = Number.POSITIVE_INFINITY
    const look = vfioHolders(this.#kernel).then(
      (holders) => {
        const end = performance.now()
        this.#freshUntil = end + Math.max(FRESH_MS, (end - start) * SHARE)
        return holders
      },
      (error: unknown) => {
        this.#look = undefined
        throw error
      },
    )
    this.#look = look
    return look
  }
}
