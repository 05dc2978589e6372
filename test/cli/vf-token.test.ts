/** vfioctl opens a virtual function with the VF token, from its option or its environment. */

import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Daemon, startDaemon } from '../system/world.ts'
import { run } from './vfioctl.ts'

const PF = '0000:09:00.0'
const VF = '0000:09:00.1'
const TOKEN = '14d63f20-8445-11ea-8900-1f9ce7d5650d'

const MACHINE = `
extends = "default"
enable_sriov = true

[[functions]]
address = "${PF}"
group = 30
bound_driver = "vfio-pci"
pcie = true
sriov = { total_vfs = 2, num_vfs = 2, first_group = 31, vf = {} }
`

let daemon: Daemon
let options: { readonly socket: string }

beforeAll(async () => {
  daemon = await startDaemon(MACHINE)
  options = { socket: daemon.socket }
  expect(await run(['--vf-token', TOKEN, 'info', PF], options)).toMatchObject({ code: 0 })
})
afterAll(() => daemon?.stop())

test('--vf-token opens it', async () => {
  const { code, stdout } = await run(['info', VF, '--vf-token', TOKEN], options)

  expect([code, stdout]).toEqual([0, expect.stringContaining(VF)])
})

test('$VFIOD_VF_TOKEN opens it, and the option goes before', async () => {
  const env = { VFIOD_VF_TOKEN: TOKEN }

  expect(await run(['info', VF], { ...options, env })).toMatchObject({ code: 0 })
  expect(
    await run(['info', VF, '--vf-token', TOKEN.replace('1', '2')], { ...options, env }),
  ).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('VF_TOKEN_NEEDED'),
  })
})

test('without one the refusal says what to pass', async () => {
  const { code, stderr } = await run(['info', VF], options)

  expect(code).toBe(1)
  expect(stderr).toContain(`the VF token of ${PF} only; pass vf_token`)
})
