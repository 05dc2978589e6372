/**
 * VF tokens through the API: two clients that share a token, on a machine with a physical function that
 * vfio-pci has and two virtual ones. Run over the simulator and over the machine of test/kernel/sriov.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { VfiodClient } from '../../src/client/client.ts'
import type { Daemon } from './world.ts'

const TOKEN = '14d63f20-8445-11ea-8900-1f9ce7d5650d'
const OTHER = 'bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3'

interface Sriov {
  readonly daemon: Daemon
  /** A function without SR-IOV that vfio-pci has, and a mediated device where there is one. */
  readonly plain: string
  readonly mdev?: string
}

export const vfTokenSystemSuite = (title: string, begin: () => Promise<Sriov>): void => {
  let world: Sriov
  let client: VfiodClient
  let pf: string
  let vf: string

  const space = async (spaceId: string, name: string) => {
    await client.addressSpace.createSpace({ spaceId })
    const { device } = await client.inventory.getDevice({ name })
    await client.addressSpace.addGroup({ spaceId, groupId: device?.groupId ?? 0 })
  }
  const open = (spaceId: string, name: string, vfToken?: string) =>
    client.device.openDevice({ spaceId, name, ...(vfToken !== undefined && { vfToken }) })

  beforeAll(async () => {
    world = await begin()
    client = world.daemon.client()
    const { devices } = await client.inventory.listDevices()
    const physical = devices.find(({ virtualFunctions }) => virtualFunctions.length > 0)
    pf = physical?.name ?? ''
    vf = physical?.virtualFunctions[0] ?? ''
    await space('pf', pf)
    await space('vf', vf)
    await space('plain', world.plain)
  })
  afterAll(async () => {
    expect(await world?.daemon.stop()).toBe(0)
    // A process that knows the token can use the functions.
    expect(world?.daemon.output()).not.toContain(TOKEN)
    expect(world?.daemon.output()).not.toContain(OTHER)
  })

  describe(`OpenDevice with vf_token [${title}]`, () => {
    test('refuses a virtual function without one, says whose it needs, and what to do', async () => {
      await open('pf', pf, TOKEN)

      await expect(open('vf', vf)).rejects.toMatchObject({
        reason: 'VF_TOKEN_NEEDED',
        details: { errno: 'EACCES', causes: ['vf-token-missing'] },
        message: expect.stringMatching(
          `${vf} is a virtual function of ${pf}, which is bound to vfio-pci, .*; pass vf_token`,
        ),
      })
    })

    test('refuses a wrong one, and says that it is wrong', async () => {
      const refused = open('vf', vf, OTHER)

      await expect(refused).rejects.toMatchObject({
        reason: 'VF_TOKEN_NEEDED',
        details: { causes: ['vf-token-wrong'] },
        message: expect.stringContaining(`is not that of ${pf}`),
      })
      await expect(refused).rejects.not.toThrow(OTHER)
    })

    test('opens with the one that the physical function was opened with', async () => {
      const { device } = await open('vf', vf, TOKEN)

      expect(device).toMatchObject({ name: vf, spaceId: 'vf' })
    })

    test('refuses the physical function without it while a virtual one is open', async () => {
      await client.device.closeDevice({ name: pf })

      await expect(open('pf', pf)).rejects.toMatchObject({
        reason: 'VF_TOKEN_NEEDED',
        details: { causes: ['vf-token-missing'] },
        message: expect.stringContaining('whose virtual functions are in use'),
      })
      await expect(open('pf', pf, OTHER)).rejects.toMatchObject({
        details: { causes: ['vf-token-wrong'] },
      })
      expect((await open('pf', pf, TOKEN)).device).toMatchObject({ name: pf })
    })

    test('gives the physical function another one when no virtual one is open', async () => {
      await client.device.closeDevice({ name: vf })
      await client.device.closeDevice({ name: pf })
      await open('pf', pf, OTHER)

      await expect(open('vf', vf, TOKEN)).rejects.toMatchObject({ reason: 'VF_TOKEN_NEEDED' })
      expect((await open('vf', vf, OTHER.toUpperCase())).device).toMatchObject({ name: vf })
    })

    test('refuses one for a device that has no use for it: BAD_ARGUMENT', async () => {
      const refusal = {
        reason: 'BAD_ARGUMENT',
        message: expect.stringContaining('takes no VF token'),
      }

      await expect(open('plain', world.plain, TOKEN)).rejects.toMatchObject(refusal)
      if (world.mdev !== undefined)
        await expect(open('plain', world.mdev, TOKEN)).rejects.toMatchObject({
          reason: 'BAD_ARGUMENT',
          message: expect.stringContaining('only PCI functions have VF tokens'),
        })
    })

    test('refuses what is not a UUID: BAD_ARGUMENT of the field', async () => {
      for (const token of ['secret', `${TOKEN} x`, TOKEN.slice(1)])
        await expect(open('plain', world.plain, token), token).rejects.toMatchObject({
          reason: 'BAD_ARGUMENT',
          message: expect.stringContaining('is not a UUID'),
        })
    })
  })
}
