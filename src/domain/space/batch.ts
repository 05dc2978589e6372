/** Batches: one result per item, and how many items there may be. */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'

/** How a batch ended: one entry per item, undefined for success, and the bytes it was about. */
export interface BatchResult {
  readonly errors: readonly (VfiodError | undefined)[]
  readonly bytes: bigint
}

/** Items between two turns of the event loop: a few milliseconds where a kernel answers at once. */
const ITEMS_PER_TURN = 64

/** Other calls go on between the items: awaiting alone would let none of them in. */
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

const isTurnDue = (index: number): boolean => index > 0 && index % ITEMS_PER_TURN === 0

/** One item after another; each succeeds or fails independently. */
export async function inTurn<Item>(
  items: readonly Item[],
  operation: (item: Item) => Promise<bigint>,
): Promise<BatchResult> {
  const errors: (VfiodError | undefined)[] = []
  let bytes = 0n
  for (const [index, item] of items.entries()) {
    if (isTurnDue(index)) await nextTurn()
    try {
      bytes += await operation(item)
      errors.push(undefined)
    } catch (error) {
      if (!(error instanceof VfiodError)) throw error
      errors.push(error)
    }
  }
  return { errors, bytes }
}

/** One item after another; the first failure is thrown, and it is for the caller to undo the rest. */
export async function inTurnOrNone<Item>(
  items: readonly Item[],
  operation: (item: Item) => Promise<bigint>,
): Promise<BatchResult> {
  let bytes = 0n
  for (const [index, item] of items.entries()) {
    if (isTurnDue(index)) await nextTurn()
    bytes += await operation(item)
  }
  return { errors: items.map(() => undefined), bytes }
}

/** Throw unless the batch has items, and not too many. */
export function requireBatch(verb: string, items: readonly unknown[]): void {
  if (items.length === 0) {
    throw new VfiodError('BAD_ARGUMENT', `Cannot ${verb} a batch: it has no items`, {
      field: 'items',
    })
  }
  if (items.length <= LIMITS.batchItems) return
  throw new VfiodError(
    'BATCH_TOO_LARGE',
    `Cannot ${verb} ${items.length} items in one call: at most ${LIMITS.batchItems}; split the batch`,
    {
      field: 'items',
      quota: {
        limit: 'items of one batch',
        max: BigInt(LIMITS.batchItems),
        current: 0n,
        needed: BigInt(items.length),
      },
    },
  )
}
