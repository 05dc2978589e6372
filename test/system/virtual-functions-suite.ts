/**
 * Making and removing virtual functions through the API, on a machine with a physical function that no
 * driver has at first and that can have two. Run over the simulator and over the machine of
 * test/kernel/sriov.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import { type Daemon, eduDevices } from './world.ts'

const TOKEN = '14d63f20-8445-11ea-8900-1f9ce7d5650d'

export const virtualFunctionsSuite = (
  title: string,
  begin: () => Promise<{ readonly daemon: Daemon; readonly pf: string }>,
): void => {
  let daemon: Daemon
  let client: VfiodClient
  let pf: string

  const set = async (count: number, name = pf) =>
    (await client.inventory.setVirtualFunctions({ name, count })).device
  const open = async (spaceId: string, name: string) => {
    await client.addressSpace.createSpace({ spaceId })
    const { device } = await client.inventory.getDevice({ name })
    await client.addressSpace.addGroup({ spaceId, groupId: device?.groupId ?? 0 })
    await client.device.openDevice({ spaceId, name, vfToken: TOKEN })
  }

  beforeAll(async () => {
    ;({ daemon, pf } = await begin())
    client = daemon.client()
  })
  afterAll(async () => {
    expect(await daemon?.stop()).toBe(0)
  })

  describe(`SetVirtualFunctions [${title}]`, () => {
    test('needs a driver: UNSUPPORTED', async () => {
      await expect(set(1)).rejects.toMatchObject({
        reason: 'UNSUPPORTED',
        message: expect.stringContaining(`${pf} has no driver`),
        details: { errno: 'ENOENT', causes: ['sriov-unsupported'] },
      })
      await client.inventory.bindDevices({ devices: [pf] })
    })

    test('refuses a device without SR-IOV, and more than there can be', async () => {
      const [edu = ''] = await eduDevices(client)

      await expect(set(1, edu)).rejects.toMatchObject({
        reason: 'UNSUPPORTED',
        message: expect.stringContaining('does not have SR-IOV'),
      })
      await expect(set(3)).rejects.toMatchObject({
        reason: 'BAD_ARGUMENT',
        message: expect.stringContaining('it can have 2 at most'),
      })
    })

    test('makes them, and the inventory has each with its physical function', async () => {
      const device = await set(2)

      expect(device?.virtualFunctions).toHaveLength(2)
      for (const name of device?.virtualFunctions ?? []) {
        const { device: vf } = await client.inventory.getDevice({ name })
        expect(vf).toMatchObject({ physicalFunction: pf, driver: 'vfio-pci' })
      }
      expect((await set(2))?.virtualFunctions).toEqual(device?.virtualFunctions)
    })

    test('changes their number by way of 0 only: DEVICE_IN_USE, and says which there are', async () => {
      const { device } = await client.inventory.getDevice({ name: pf })

      await expect(set(1)).rejects.toMatchObject({
        reason: 'DEVICE_IN_USE',
        message: expect.stringContaining(
          `it has 2 (${device?.virtualFunctions[0]} and 1 more), and the number changes by way of 0 only`,
        ),
      })
    })

    test('removes none while one is open, and names it and its owner', async () => {
      const { device } = await client.inventory.getDevice({ name: pf })
      const vf = device?.virtualFunctions[1] ?? ''
      await open('pf', pf)
      await open('vf', vf)

      await expect(set(0)).rejects.toMatchObject({
        reason: 'DEVICE_IN_USE',
        message: expect.stringMatching(
          `its virtual function ${vf} would go with it, and it is open in address space "vf" of `,
        ),
      })

      await client.device.closeDevice({ name: vf })
      await expect(set(0)).rejects.toMatchObject({
        reason: 'DEVICE_IN_USE',
        message: expect.stringMatching(`${vf} would go with it, and its group \\d+ is a member of`),
      })
      await client.addressSpace.destroySpace({ spaceId: 'vf' })
    })

    test('removes them with 0, although the physical function is open', async () => {
      const before = (await client.inventory.getDevice({ name: pf })).device?.virtualFunctions ?? []

      expect((await set(0))?.virtualFunctions).toEqual([])

      for (const name of before)
        await expect(client.inventory.getDevice({ name })).rejects.toMatchObject({
          reason: 'NO_SUCH_DEVICE',
        })
      expect((await set(0))?.virtualFunctions).toEqual([])
      await client.addressSpace.destroySpace({ spaceId: 'pf' })
      await client.inventory.unbindDevices({ devices: [pf] })
    })
  })
}
