/** `[host]` of the machine file: what the host uses of its disks. */
import { z } from 'zod'
import type { HostSpec } from '../spec/host-spec.ts'
import type { FunctionSpec } from '../spec/machine-spec.ts'
import type { Contradiction } from './functions.ts'
import { partName as name } from './host-parts.ts'

export const hostTable = z.strictObject({
  volumes: z
    .array(z.strictObject({ name, label: name.optional(), on: z.array(name).min(1) }))
    .default([]),
  mounts: z
    .array(z.strictObject({ device: name, point: z.string(), type: z.string().default('ext4') }))
    .default([]),
  swaps: z.array(name).default([]),
})

/** What is on a disk that the machine does not have. */
export const hostContradictions = (
  { volumes, mounts, swaps }: HostSpec,
  functions: readonly FunctionSpec[],
): Contradiction[] => {
  const known = new Set([
    ...functions.flatMap(({ disks = [] }) =>
      disks.flatMap((each) => [each.name, ...each.partitions]),
    ),
    ...volumes.map((volume) => volume.name),
  ])
  const unknown = (device: string, where: (string | number)[]): Contradiction[] =>
    known.has(device)
      ? []
      : [{ path: ['host', ...where], message: `there is no disk, partition or volume "${device}"` }]
  return [
    ...volumes.flatMap(({ on }, n) =>
      on.flatMap((device) => unknown(device, ['volumes', n, 'on'])),
    ),
    ...mounts.flatMap(({ device }, n) => unknown(device, ['mounts', n, 'device'])),
    ...swaps.flatMap((device, n) => unknown(device, ['swaps', n])),
  ]
}
