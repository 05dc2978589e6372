/** What functions of the machine file have below them that the host can use. */
import { z } from 'zod'
import type { DiskSpec, InterfaceSpec } from '../spec/host-spec.ts'

export const partName = z
  .string()
  .regex(/^[^/\s]+$/, 'a name of sysfs is needed, without spaces and slashes')
const path = z.string().regex(/^[^/\s]+(\/[^/\s]+)*$/, 'a path such as "nvme/nvme0" is needed')
const address = z
  .string()
  .regex(/^([\d.]+|[\da-f:]+)\/\d+$/, 'an address with the bits of its network is needed')

export const disk = z.strictObject({
  name: partName,
  path: path.default('block'),
  partitions: z.array(partName).default([]),
}) satisfies z.ZodType<DiskSpec>

export const networkInterface = z
  .strictObject({
    name: partName,
    path: path.default('net'),
    up: z.boolean().default(true),
    addresses: z.array(address).default([]),
    default_route: z.boolean().default(false),
    master: partName.optional(),
    elsewhere: z.boolean().default(false),
  })
  .transform(
    ({ up, default_route, elsewhere, ...rest }): InterfaceSpec => ({
      ...rest,
      isUp: up,
      hasDefaultRoute: default_route,
      isElsewhere: elsewhere,
    }),
  )

export const consoleName = z.string().regex(/^(fb\d+|tty\w+)$/, '"fb0" or "ttyS4" is needed')
