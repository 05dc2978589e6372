/**
 * The conformance run, inside the test machine: for every area, sequences that fast-check makes up
 * run on the simulator and on the kernel of this machine. `run.mjs` starts it there.
 */

import { existsSync, readlinkSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import fc from 'fast-check'
import type { Area } from './areas/area.ts'
import { areas } from './areas.ts'
import { Duel, type Result } from './duel.ts'
import { Nursery } from './linux-second.ts'
import { LinuxSide } from './linux-side.ts'
import { boundAddresses, MDEVS } from './machine.ts'
import { Memory } from './memory.ts'
import { Processes } from './processes.ts'
import { record } from './record.ts'
import { differenceText } from './report.ts'
import { SimSide } from './sim-side.ts'

const OPS = Number(process.env.VFIOD_OPS ?? 20_000)
const SHOWN_EVERY = 10_000
const SEED = Number(process.env.VFIOD_SEED ?? 1)

const sysfs = (path: string, data: string): void => writeFileSync(path, data)

/** Makes the real machine what machine.ts says. */
const prepare = (): void => {
  for (const address of boundAddresses) {
    const device = `/sys/bus/pci/devices/${address}`
    const driver = existsSync(`${device}/driver`) ? basename(readlinkSync(`${device}/driver`)) : ''
    if (driver === 'vfio-pci') continue
    if (driver !== '') sysfs(`${device}/driver/unbind`, address)
    sysfs(`${device}/driver_override`, 'vfio-pci')
    sysfs('/sys/bus/pci/drivers_probe', address)
  }
  for (const { uuid, type } of Object.values(MDEVS))
    if (!existsSync(`/sys/bus/mdev/devices/${uuid}`))
      sysfs(`/sys/class/mdev_bus/mtty/mdev_supported_types/${type}/create`, uuid)
}

/** Sequences until enough operations were made; whether all of them were the same on both. */
const runArea = async ({ name, sequence }: Area, duel: Duel): Promise<boolean> => {
  const began = Date.now()
  let sequences = 0
  let ops = 0
  let live = 0
  let shown = 0
  for (let seed = SEED; live < OPS; seed++) {
    const path = process.env.VFIOD_PATH
    let worst: Result | undefined
    const property = fc.asyncProperty(sequence, async (it) => {
      const result = await duel.run(it)
      sequences += 1
      ops += result.trace.length
      live += result.live
      if (result.difference !== undefined) worst = result
      return result.difference === undefined
    })
    const numRuns = path ? 1 : Math.min(50, Math.ceil((OPS - live) / 30))
    // The machine that is silent for long is taken for one that hangs.
    if (live >= (shown + 1) * SHOWN_EVERY) {
      shown = Math.floor(live / SHOWN_EVERY)
      console.log(`${name}: ${live} operations so far`)
    }
    const checked = await fc.check(property, { seed, numRuns, ...(path ? { path } : {}) })
    if (checked.failed && checked.counterexample && worst) {
      const [found] = checked.counterexample
      const isRepeatable = (await duel.run(found)).difference !== undefined
      const at = { seed, path: checked.counterexamplePath ?? '' }
      console.log(differenceText(name, at, found, worst, isRepeatable))
      return false
    }
    if (checked.failed) throw checked.errorInstance
    if (path) break
  }
  const seconds = (Date.now() - began) / 1000
  const rate = Math.round(ops / seconds)
  console.log(
    `${name}: ${live} operations on live objects (${ops} in all) in ${sequences} sequences, ` +
      `no difference; ${seconds.toFixed(1)} s, ${rate} a second`,
  )
  return true
}

const isRecording = process.argv.includes('--record')
const wanted = process.argv.slice(2).filter((word) => !word.startsWith('-'))
prepare()
const duel = new Duel(
  new Processes(await SimSide.make(await Memory.make(), await Memory.make())),
  new Processes(await LinuxSide.make(await Memory.make(), await Nursery.make())),
)
let failed = 0
let passed = 0
for (const area of areas) {
  if (wanted.length > 0 && !wanted.includes(area.name)) continue
  if (isRecording) {
    for (const line of await record(area, duel, SEED))
      console.log(`golden ${area.name} ${line.replaceAll('\n', '')}`)
  } else if (await runArea(area, duel)) passed += 1
  else failed += 1
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
