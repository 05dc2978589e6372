/** What the policy allows a client, asked where it is about to do something. */

import { VfiodError } from '../../base/error.ts'
import type { HostDevice } from '../../kernel/sysfs.ts'
import { allowsDevice } from '../../rules/policy.ts'
import type { Client } from './clients.ts'

/** Throw DEVICE_NOT_ALLOWED unless the device is on the client's allow-list. */
export function requireAllowed(client: Client, device: HostDevice, act: string): void {
  if (allowsDevice(client.grant, device)) return
  throw new VfiodError(
    'DEVICE_NOT_ALLOWED',
    `Cannot ${act}: the policy does not allow ${device.name} to ${client.identity}; it allows ${client.grant.devices.join(', ') || 'none'}`,
    { resource: { type: 'device', name: device.name } },
  )
}
