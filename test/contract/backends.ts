/**
 * Which kernels the contract holds for, and what a test may ask of the machine it runs on.
 * VFIOD_BACKENDS names them: `sim` by default, `linux` inside the test machine, or both.
 *
 * A rule that a backend cannot be asked about is skipped by name, with the reason: see `unless`.
 */

import { afterAll, afterEach, describe, test } from 'vitest'
import { linuxKernel } from '../../src/backends/linux/kernel.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import { MODES, type Mode, type ModeSkips, skipSuite } from '../modes.ts'
import { Machine } from './machine.ts'

export const BACKENDS = ['sim', 'linux'] as const
export type Backend = (typeof BACKENDS)[number]

const chosen = (process.env.VFIOD_BACKENDS ?? 'sim').split(',')

/** Long enough for what a device does on its own; each look at it waits this long. */
const GLANCE_MS = 10

const machineOn = (backend: Backend, mode: Mode): Machine => {
  if (backend === 'linux') {
    const settle = () => new Promise<void>((resolve) => setTimeout(resolve, GLANCE_MS))
    return new Machine(backend, linuxKernel(), settle, { mode })
  }
  const { vfioContainer } = mode
  const sim = createSim({ ...defaultMachine, mdevs: [], vfioContainer }, { time: 'poked' })
  const settle = async () => void sim.step()
  return new Machine(backend, sim.kernel, settle, {
    mode,
    lockedPages: () => sim.lockedPages,
  })
}

const describeBackends = (
  name: string,
  body: (machine: Machine) => void,
  skips: ModeSkips,
): void => {
  for (const backend of BACKENDS) {
    if (!chosen.includes(backend)) {
      skipSuite(name, `backend ${backend} is not in VFIOD_BACKENDS`)
      continue
    }
    for (const mode of MODES) {
      const full = `${name} [${backend}, ${mode.name}]`
      const why = skips[mode.name]
      if (why !== undefined) skipSuite(full, why)
      else describe(full, () => runOn(machineOn(backend, mode), body))
    }
  }
}

/** The same suite for every chosen backend, in every mode. */
export const describeContract = (name: string, body: (machine: Machine) => void): void =>
  describeBackends(name, body, {})

/** A suite that has nothing to ask of an iommufd as a container, and says why. */
export const describeType1 =
  (why: string) =>
  (name: string, body: (machine: Machine) => void): void =>
    describeBackends(name, body, { compat_type1v2: why })

const runOn = (machine: Machine, body: (machine: Machine) => void): void => {
  afterEach(() => machine.cleanUp())
  afterAll(() => machine.restore())
  body(machine)
}

/**
 * A suite of what the test machine cannot be asked about, for it has no such hardware or is no such
 * kernel: it runs on the simulator, and is skipped by name elsewhere.
 */
export const describeModelled =
  (lack: string) =>
  (name: string, body: () => void): void => {
    if (chosen.includes('sim')) describe(`${name} [sim]`, body)
    if (!chosen.includes('linux')) return
    skipSuite(`${name} [linux]`, lack)
  }

/** A test, or a skip that says why: `unless(machine.backend === 'linux', 'it would ...')(name, ...)`. */
export const unless = (
  isImpossible: boolean,
  why: string,
): ((name: string, run: () => Promise<void>) => void) =>
  isImpossible ? (name, run) => test.skip(`${name} (skipped: ${why})`, run) : test
