/** What the daemon makes of a machine file, as far as only the running machine shows it. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createBackend } from '../../src/daemon/compose.ts'
import { loadConfig } from '../../src/daemon/config.ts'
import { EduDriver, REG } from '../contract/edu-driver.ts'
import { Machine } from '../contract/machine.ts'

const EDU = '0000:00:04.0'
const file = `
[[functions]]
address = "${EDU}"
kind = "edu"
group = 3
bound_driver = "vfio-pci"
`

const directory = mkdtempSync(join(tmpdir(), 'vfiod-compose-'))
beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())
afterAll(() => rmSync(directory, { recursive: true }))

/** Whether a factorial that was begun is still under way a second later, and a step ends it. */
const waitsForStep = async (time: string): Promise<boolean> => {
  const machineFile = join(directory, 'machine.toml')
  writeFileSync(machineFile, time + file)
  const config = loadConfig(
    {
      config: undefined,
      socket: undefined,
      sim: machineFile,
      logLevel: undefined,
      trace: undefined,
    },
    {},
  )
  const { kernel, simulator } = await createBackend(config)
  const machine = new Machine('sim', kernel, async () => {})
  const { device } = await machine.opened(EDU)
  const edu = await new EduDriver(machine, device).enable()
  await edu.write32(REG.factorial, 5)
  vi.advanceTimersByTime(1000)

  const isUnderWay = ((await edu.read32(REG.status)) & 1) !== 0
  expect(simulator?.step()).toBe(isUnderWay)
  expect(await edu.read32(REG.factorial)).toBe(120)
  await machine.cleanUp()
  return isUnderWay
}

describe('time in a machine file', () => {
  test.each([
    ['goes by itself where nothing is said', '', false],
    ['goes by itself when it is auto', 'time = "auto"', false],
    ['waits for a step when it is poked', 'time = "poked"', true],
  ])('%s', async (_what, time, waits) => {
    expect(await waitsForStep(time)).toBe(waits)
  })
})
