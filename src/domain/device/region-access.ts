/** What a read or a write of a region must be, before the kernel is asked. */

import { VfiodError } from '../../base/error.ts'
import { LIMITS } from '../../base/limits.ts'
import { hex } from '../../base/units.ts'
import type { Region } from '../../kernel/device-calls.ts'
import type { OpenDevice } from './device.ts'

/** Throw unless the bytes lie in the region, are not too many, and may be read or written. */
export function requireInRegion(
  verb: 'read' | 'write',
  device: OpenDevice,
  region: Region,
  { offset, length }: { readonly offset: bigint; readonly length: number },
): void {
  const act = `Cannot ${verb} ${length} bytes of region ${region.index} of ${device.name} at ${hex(offset)}`
  if (length === 0) {
    throw new VfiodError('BAD_ARGUMENT', `${act}: at least one byte is needed`, { field: 'length' })
  }
  if (length > LIMITS.regionBytes) {
    throw new VfiodError(
      'BATCH_TOO_LARGE',
      `${act}: one call moves at most ${LIMITS.regionBytes} bytes; split it`,
      {
        quota: {
          limit: 'bytes of one region access',
          max: BigInt(LIMITS.regionBytes),
          current: 0n,
          needed: BigInt(length),
        },
      },
    )
  }
  if (offset + BigInt(length) > region.size) {
    throw new VfiodError('OUT_OF_REGION', `${act}: it has ${hex(region.size)} bytes`, {
      field: 'offset',
    })
  }
  if (verb === 'read' ? region.isReadable : region.isWritable) return
  throw new VfiodError(
    'UNSUPPORTED',
    `${act}: the region cannot be ${verb === 'read' ? 'read' : 'written'}`,
    {
      field: 'region',
    },
  )
}
