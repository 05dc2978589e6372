/**
 * VF tokens: which opens of a physical function and its virtual ones the kernel takes. Run over the
 * simulator, and over a machine with an SR-IOV device (test/kernel/sriov).
 */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../src/abi/feature.ts'
import { said } from './answers.ts'
import { feature, getDeviceFd } from './calls.ts'
import { bind, openCdev, openIommufd } from './iommufd-calls.ts'
import type { Machine } from './machine.ts'

const PCI = '/sys/bus/pci/devices'
const ENABLE = '/sys/module/vfio_pci/parameters/enable_sriov'
const TOKEN = '14d63f20-8445-11ea-8900-1f9ce7d5650d'
const OTHER = 'bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3'

const { GET, SET, PROBE, FEATURE } = {
  GET: VFIO_DEVICE_FEATURE_GET,
  SET: VFIO_DEVICE_FEATURE_SET,
  PROBE: VFIO_DEVICE_FEATURE_PROBE,
  FEATURE: VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
}

const bytesOf = (uuid: string): Uint8Array => Buffer.from(uuid.replaceAll('-', ''), 'hex')

export const vfTokenSuite = (title: string, machine: Machine): void => {
  let pf = ''
  let vf = ''

  const write = async (path: string, data: string) =>
    said(await machine.kernel.writeFile(path, data))
  const numVfs = (count: number) => write(`${PCI}/${pf}/sriov_numvfs`, String(count))

  /** What a group answers, once it is in a container, to one name after another. */
  const opener = async (name: string) => {
    const { group } = await machine.attached([name])
    return async (options = ''): Promise<number> =>
      machine.track(await getDeviceFd(machine.kernel, group, `${name}${options}`))
  }
  const token = (uuid: string) => ` vf_token=${uuid}`
  /** Opens it, and closes it again. */
  const passes = async (open: (options?: string) => Promise<number>, options = '') => {
    const answer = await open(options)
    if (answer < 0) return said(answer)
    await machine.close(answer)
    return 0
  }

  beforeAll(async () => {
    for (const name of await machine.names(PCI)) {
      const files = await machine.names(`${PCI}/${name}`)
      if (files.includes('sriov_totalvfs')) pf = name
    }
    if (pf === '') throw new Error('Cannot find a physical function')
    await machine.bind(pf)
    expect(await write(ENABLE, 'Y')).toBeGreaterThan(0)
  })
  afterAll(async () => {
    await machine.cleanUp()
    await write(ENABLE, 'N')
    await machine.restore()
  })
  beforeEach(async () => {
    expect(await numVfs(2)).toBeGreaterThan(0)
    vf = (await machine.linked(`${PCI}/${pf}/virtfn0`)) ?? ''
  })
  afterEach(async () => {
    await machine.cleanUp()
    await write(ENABLE, 'Y')
    await numVfs(0)
  })

  describe(`${title}: virtual functions of vfio-pci`, () => {
    test('are made for user space: vfio-pci has them, and no other driver can', async () => {
      expect(await machine.driverOf(vf)).toBe('vfio-pci')
      expect(await machine.text(`${PCI}/${vf}/driver_override`)).toBe('vfio-pci')
    })

    test('are neither made nor taken away without enable_sriov: ENOENT', async () => {
      await write(ENABLE, 'N')
      expect(await numVfs(0)).toBe('ENOENT')
      await write(ENABLE, 'Y')
      expect(await numVfs(0)).toBeGreaterThan(0)
      await write(ENABLE, 'N')

      expect(await numVfs(1)).toBe('ENOENT')
    })

    test('go with the driver of their physical function', async () => {
      await machine.unbind(pf)

      expect(await machine.linked(`${PCI}/${pf}/virtfn0`)).toBeUndefined()
      expect(await machine.names(PCI)).not.toContain(vf)
      await machine.bind(pf)
    })
  })

  describe(`${title}: a virtual function of one that vfio-pci has (vf_token)`, () => {
    test('opens with the token that its physical function was opened with', async () => {
      const openPf = await opener(pf)
      const openVf = await opener(vf)
      await openPf(token(TOKEN))

      expect(await passes(openVf, token(TOKEN))).toBe(0)
      expect(await passes(openVf, token(TOKEN.toUpperCase()))).toBe(0)
    })

    test('opens without a token or with another: EACCES', async () => {
      const openPf = await opener(pf)
      const openVf = await opener(vf)
      await openPf(token(TOKEN))

      expect(await passes(openVf)).toBe('EACCES')
      expect(await passes(openVf, token(OTHER))).toBe('EACCES')
    })

    test('opens with no token that a user can know before there is one: EACCES', async () => {
      const openVf = await opener(vf)

      expect(await passes(openVf, token('00000000-0000-0000-0000-000000000000'))).toBe('EACCES')
    })

    test('opens with the token after its physical function is closed', async () => {
      expect(await passes(await opener(pf), token(TOKEN))).toBe(0)

      expect(await passes(await opener(vf), token(TOKEN))).toBe(0)
    })

    test('takes no option but one token: EINVAL', async () => {
      const openVf = await opener(vf)
      const wrong = [' x', ' vf_token=1', ` vf_token=${TOKEN}x`, `${token(TOKEN)}${token(TOKEN)}`]

      for (const options of wrong) expect(await passes(openVf, options), options).toBe('EINVAL')
      expect(await passes(openVf, ` vf_token=${TOKEN.replaceAll('-', '_')}`)).toBe('EINVAL')
    })

    test('is compared with the options after its name: spaces do not count', async () => {
      await passes(await opener(pf), token(TOKEN))
      const openVf = await opener(vf)

      expect(await passes(openVf, `   vf_token=${TOKEN}  `)).toBe(0)
      expect(await passes(openVf, `x vf_token=${TOKEN}`)).toBe('ENODEV')
    })

    test('has no token to set: ENOTTY', async () => {
      await passes(await opener(pf), token(TOKEN))
      const device = await (await opener(vf))(token(TOKEN))

      const answer = await feature(machine.kernel, device, FEATURE | SET, bytesOf(OTHER))

      expect(said(answer)).toBe('ENOTTY')
    })
  })

  describe(`${title}: a physical function of vfio-pci`, () => {
    test('opens with and without a token while no virtual function is open', async () => {
      const openPf = await opener(pf)

      expect(await passes(openPf)).toBe(0)
      expect(await passes(openPf, token(TOKEN))).toBe(0)
      expect(await passes(openPf)).toBe(0)
      expect(await passes(openPf, token(OTHER))).toBe(0)
    })

    test('keeps its token when it is opened without one, and takes another', async () => {
      const openPf = await opener(pf)
      const openVf = await opener(vf)
      await passes(openPf, token(TOKEN))
      await passes(openPf)
      expect(await passes(openVf, token(TOKEN))).toBe(0)

      await passes(openPf, token(OTHER))

      expect(await passes(openVf, token(TOKEN))).toBe('EACCES')
      expect(await passes(openVf, token(OTHER))).toBe(0)
    })

    test('opens with its token only while a virtual function is open: EACCES', async () => {
      const openPf = await opener(pf)
      await passes(openPf, token(TOKEN))
      await (await opener(vf))(token(TOKEN))

      expect(await passes(openPf)).toBe('EACCES')
      expect(await passes(openPf, token(OTHER))).toBe('EACCES')
      expect(await passes(openPf, token(TOKEN))).toBe(0)
    })

    test('is given another token while it is open: VFIO_DEVICE_FEATURE_PCI_VF_TOKEN', async () => {
      const device = await (await opener(pf))(token(TOKEN))
      const openVf = await opener(vf)
      const set = (payload: Uint8Array) =>
        feature(machine.kernel, device, FEATURE | SET, payload).then(said)
      expect(said(await feature(machine.kernel, device, FEATURE | SET | PROBE))).toBe(0)
      expect(await set(bytesOf(OTHER).subarray(1))).toBe('EINVAL')

      expect(await set(bytesOf(OTHER))).toBe(0)

      expect(await passes(openVf, token(TOKEN))).toBe('EACCES')
      expect(await passes(openVf, token(OTHER))).toBe(0)
    })

    test('tells its token to no user: EINVAL', async () => {
      const device = await (await opener(pf))(token(TOKEN))
      const payload = new Uint8Array(16)

      const answer = await feature(machine.kernel, device, FEATURE | GET, payload)

      expect(said(answer)).toBe('EINVAL')
      expect(payload).toEqual(new Uint8Array(16))
    })
  })

  describe(`${title}: other opens`, () => {
    test('of a function without SR-IOV take no token: EINVAL', async () => {
      const [edu] = await machine.edus()

      expect(await passes(await opener(edu), token(TOKEN))).toBe('EINVAL')
    })

    test('through the cdev ask for no token, and the virtual function is in use then', async () => {
      const openPf = await opener(pf)
      await passes(openPf, token(TOKEN))
      const cdev = await openCdev(machine, vf)

      const { answer } = await bind(machine, cdev, (await openIommufd(machine)).fd)

      expect(answer).toBe(0)
      expect(await passes(openPf)).toBe('EACCES')
    })
  })
}
