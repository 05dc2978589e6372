/** BARs with plain memory behind them: reads return the bytes written, and a mapping has the same bytes. */

import { ERRNO } from '../../../../base/errno.ts'
import type { MapRequest } from '../../../../kernel/port.ts'
import type { Segment } from '../../../../os/memory.ts'
import type { BarSpec } from '../../spec/machine-spec.ts'
import type { Registers } from '../registers.ts'
import { SharedPages } from '../shared-pages.ts'

export class BarMemory implements Registers {
  readonly #bars: readonly BarSpec[]
  /** Those that were ever written or mapped. */
  readonly #touched = new Map<number, SharedPages>()

  constructor(bars: readonly BarSpec[]) {
    this.#bars = bars
  }

  read(bar: number, offset: number, into: Uint8Array): void {
    const memory = this.#touched.get(bar)
    if (memory) into.set(memory.view(offset, into.length))
    else into.fill(0)
  }

  write(bar: number, offset: number, from: Uint8Array): void {
    this.#touch(bar)?.view(offset, from.length).set(from)
  }

  /** All of it is zeros again; mappings see that too. */
  reset(): void {
    for (const [bar, memory] of this.#touched) {
      const size = this.#bars.find(({ index }) => index === bar)?.size ?? 0n
      memory.view(0, Number(size)).fill(0)
    }
  }

  map(bar: number, request: MapRequest): Promise<Segment | number> | number {
    return this.#touch(bar)?.map(request) ?? -ERRNO.EINVAL
  }

  #touch(bar: number): SharedPages | undefined {
    const known = this.#touched.get(bar)
    const spec = this.#bars.find(({ index }) => index === bar)
    if (known || !spec) return known
    const memory = new SharedPages(Number(spec.size))
    this.#touched.set(bar, memory)
    return memory
  }
}
