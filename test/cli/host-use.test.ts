/** What the host uses, as vfioctl shows it, refuses to take it, and takes it by force. */

import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type Daemon, startDaemon, until } from '../system/world.ts'
import { type Outcome, run } from './vfioctl.ts'

// Each run is a process; a busy machine takes its time for one.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

const CARD = '0000:00:07.0'
const USE = 'eth0 is up and has the address 10.0.0.2/24 and the default route'
const MACHINE = `extends = "default"
[[functions]]
address = "${CARD}"
group = 6
native_driver = "e1000e"
bound_driver = "e1000e"
interfaces = [{ name = "eth0", addresses = ["10.0.0.2/24"], default_route = true }]
`

let daemon: Daemon

beforeAll(async () => {
  daemon = await startDaemon(MACHINE)
})

afterAll(async () => {
  expect(await daemon?.stop()).toBe(0)
})

const vfioctl = (...args: string[]): Promise<Outcome> => run(args, { socket: daemon.socket })

test.each(['devices', 'groups'])(
  'vfioctl %s lists what the host uses each device for',
  async (command) => {
    const { stdout } = await vfioctl(command)

    expect(stdout).toContain(
      `\n\n${CARD} is used by the host: ${USE}; move them, or set it down before it is bound\n`,
    )
  },
)

test('the API has the uses in lists and single answers', async () => {
  const { inventory } = daemon.client()
  const hostUses = [
    { kind: 'HOST_USE_KIND_NETWORK', part: 'eth0', found: USE, fix: 'move them, or set it down' },
  ]

  expect((await inventory.getDevice({ name: CARD })).device).toMatchObject({ hostUses })
  expect((await inventory.getGroup({ groupId: 6 })).group?.devices).toMatchObject([{ hostUses }])
  const { devices } = await inventory.listDevices({})
  expect(devices.filter((device) => device.hostUses.length > 0)).toMatchObject([
    { name: CARD, hostUses },
  ])
})

test('vfioctl bind refuses, says the use and what to do, and changes nothing', async () => {
  const { code, stderr } = await vfioctl('bind', CARD)

  expect(code).toBe(1)
  expect(stderr).toContain(`blocked by  ${CARD}: used by the host: ${USE}`)
  expect(stderr).toContain('fix         move them, or set it down, or force the bind')
  expect(stderr).toContain('reason      HOST_USES_DEVICE')
  const { device } = await daemon.client().inventory.getDevice({ name: CARD })
  expect(device?.driver).toBe('e1000e')
})

test('vfioctl bind --force takes it; the audit has the force, and the log the uses', async () => {
  const { code, stdout } = await vfioctl('bind', '--force', CARD)

  expect(code).toBe(0)
  expect(stdout).toMatch(/0000:00:07\.0 .* vfio-pci/)
  const line = (...words: string[]) =>
    daemon
      .output()
      .split('\n')
      .some((each) => words.every((word) => each.includes(word)))
  await until(() => line('audit', 'BindDevices', CARD, 'force') || undefined)
  await until(() => line('taken from the host', CARD, USE) || undefined)
  expect((await vfioctl('unbind', CARD)).stdout).toMatch(/0000:00:07\.0 .* e1000e/)
})
