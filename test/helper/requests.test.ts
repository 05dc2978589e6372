// The closed list of what a helper does: anything else is no request, whatever it looks like.

import { describe, expect, test } from 'vitest'
import { isLook, isWrite } from '../../src/helper/requests.ts'
import { requestOf } from '../../src/helper/writes.ts'

const EDU = '0000:00:04.0'

describe('a look', () => {
  test.each([
    { look: 'pin' },
    { look: 'image' },
    { look: 'same-mm' },
    { look: 'vfio-holders' },
    { look: 'host-facts', functions: [] },
    { look: 'host-facts', functions: [EDU, '10000:e1:1f.7'] },
  ])('is %o', (value) => {
    expect(isLook(value)).toBe(true)
  })

  test.each([
    [undefined],
    [null],
    ['pin'],
    [{}],
    [{ look: 'file' }],
    [{ look: 'constructor' }],
    [{ look: ['pin'] }],
    [{ look: 'pin', path: '/etc/shadow' }],
    [{ look: 'pin', pid: 1 }],
    [{ write: 'unbind', device: EDU, driver: 'edu' }],
    [{ look: 'host-facts' }],
    [{ look: 'host-facts', functions: EDU }],
    [{ look: 'host-facts', functions: ['../../../etc'] }],
    [{ look: 'host-facts', functions: [`${EDU}\n`] }],
    [{ look: 'host-facts', functions: Array(3501).fill(EDU) }],
  ])('is not %o', (value) => {
    expect(isLook(value)).toBe(false)
  })
})

describe('a write', () => {
  test.each([
    { write: 'driver_override', device: EDU, driver: 'vfio-pci' },
    { write: 'driver_override', device: EDU, driver: null },
    { write: 'unbind', device: EDU, driver: 'snd_hda_intel' },
    { write: 'unbind', device: EDU, driver: 'JMicron IDE' },
    { write: 'drivers_probe', device: EDU },
    { write: 'sriov_numvfs', device: EDU, count: 8 },
  ])('is %o', (value) => {
    expect(isWrite(value)).toBe(true)
  })

  test.each([
    [{ write: 'remove', device: EDU }],
    [{ write: 'new_id', device: EDU, driver: 'vfio-pci' }],
    [{ write: 'drivers_probe', device: '../0000:00:04.0' }],
    [{ write: 'drivers_probe', device: '0000:00:04.0/../..' }],
    [{ write: 'drivers_probe', device: '0000:00:04.8' }],
    [{ write: 'drivers_probe', device: '0000:00:0A.0' }],
    [{ write: 'drivers_probe', device: `${EDU}\n` }],
    [{ write: 'drivers_probe', device: `${EDU}\0` }],
    [{ write: 'drivers_probe', device: [EDU] }],
    [{ write: 'drivers_probe', device: EDU, path: '/sys' }],
    [{ write: 'unbind', device: EDU }],
    [{ write: 'unbind', device: EDU, driver: null }],
    [{ write: 'unbind', device: EDU, driver: '' }],
    [{ write: 'unbind', device: EDU, driver: '.' }],
    [{ write: 'unbind', device: EDU, driver: '..' }],
    [{ write: 'unbind', device: EDU, driver: '../../mdev/drivers/x' }],
    [{ write: 'unbind', device: EDU, driver: 'a\nb' }],
    [{ write: 'unbind', device: EDU, driver: 'a'.repeat(65) }],
    [{ write: 'sriov_numvfs', device: EDU, count: -1 }],
    [{ write: 'sriov_numvfs', device: EDU, count: 1.5 }],
    [{ write: 'sriov_numvfs', device: EDU, count: '4' }],
    [{ write: 'sriov_numvfs', device: EDU, count: 65_536 }],
  ])('is not %o', (value) => {
    expect(isWrite(value)).toBe(false)
  })
})

describe('a write through the port', () => {
  test.each([
    [`/sys/bus/pci/devices/${EDU}/driver_override`, 'vfio-pci\n'],
    [`/sys/bus/pci/devices/${EDU}/driver_override`, '\n'],
    ['/sys/bus/pci/drivers/edu/unbind', EDU],
    ['/sys/bus/pci/drivers_probe', EDU],
    [`/sys/bus/pci/devices/${EDU}/sriov_numvfs`, '4'],
  ])('to %s is a request', (path, data) => {
    expect(isWrite(requestOf(path, data))).toBe(true)
  })

  test.each([
    [`/sys/bus/pci/devices/${EDU}/remove`, '1'],
    [`/sys/bus/pci/devices/${EDU}/reset`, '1'],
    ['/sys/bus/pci/drivers/vfio-pci/new_id', '1234 11e8'],
    ['/sys/bus/pci/drivers/../devices/unbind', EDU],
    ['/sys/bus/pci/drivers/a/b/unbind', EDU],
    [`/sys/bus/pci/devices/${EDU}/sriov_numvfs`, '0x4'],
    [`/sys/bus/pci/devices/${EDU}/sriov_numvfs`, ''],
    ['/sys/module/vfio/parameters/x', '1'],
    ['/etc/shadow', EDU],
  ])('to %s with %j is none', (path, data) => {
    expect(requestOf(path, data)).toBeUndefined()
  })
})
