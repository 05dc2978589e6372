/** A device that cannot be moved: the ones moved before it get their former drivers back. */

import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, eduDevices, startDaemon } from '../system/world.ts'

/** A function of QEMU's q35 and the driver of the kernel that has it. */
const HELD = '0000:00:1f.3'
const HOLDER = 'i801_smbus'

let daemon: Daemon
let client: VfiodClient

beforeAll(async () => {
  daemon = await startDaemon()
  client = daemon.client()
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
})

const driverOf = async (name: string) => (await client.inventory.getDevice({ name })).device?.driver

/** Until the answered function is called, the kernel refuses every new driver for the device. */
function holdDriver(name: string): () => void {
  const file = `/sys/bus/pci/devices/${name}/driver_override`
  execFileSync('mount', ['--bind', file, file])
  execFileSync('mount', ['-o', 'remount,bind,ro', file])
  return () => execFileSync('umount', [file])
}

test('gives every device its former driver when a later one cannot be bound', async () => {
  const [edu = '', last = ''] = await eduDevices(client)
  const letGo = holdDriver(last)
  try {
    const refused = client.inventory.bindDevices({ devices: [edu, HELD, last] })

    await expect(refused).rejects.toThrow(`Cannot set driver_override of ${last}`)
    await expect(refused).rejects.not.toThrow('could not be undone')
    expect(await driverOf(edu)).toBe('')
    expect(await driverOf(HELD)).toBe(HOLDER)
  } finally {
    letGo()
  }

  await client.inventory.bindDevices({ devices: [last] })
  expect(await driverOf(last)).toBe('vfio-pci')
  await client.inventory.unbindDevices({ devices: [last] })
})
