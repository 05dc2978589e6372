/** Facts about a device, read through the port; what cannot be read is undefined. */

import type { DeviceFd } from '../base/units.ts'
import type { DeviceFacts, IrqFacts, RegionFacts } from '../rules/causes/judge-device.ts'
import { isVfioDriver } from '../rules/viability.ts'
import { type Region, readRegion } from './device-calls.ts'
import type { Kernel } from './port.ts'
import { busOf, hostDevice } from './sysfs.ts'

const PCI = '/sys/bus/pci/devices'

const textOf = async (kernel: Kernel, path: string): Promise<string | undefined> => {
  const bytes = await kernel.readFile(path)
  return typeof bytes === 'number' ? undefined : new TextDecoder().decode(bytes)
}

const targetOf = async (kernel: Kernel, path: string): Promise<string | undefined> => {
  const link = await kernel.readLink(path)
  return typeof link === 'number' ? undefined : link.slice(link.lastIndexOf('/') + 1)
}

export async function deviceFacts(kernel: Kernel, name: string): Promise<DeviceFacts> {
  const device = await hostDevice(kernel, name)
  const physical = device?.physicalFunction
  const driver = physical && (await targetOf(kernel, `${PCI}/${physical}/driver`))
  return {
    name,
    exists: busOf(name) === 'other' ? undefined : device !== undefined,
    driver: device?.driver,
    isVfio: device !== undefined && isVfioDriver(device),
    physical: physical === undefined ? undefined : { name: physical, driver },
    hasVirtual: (device?.virtualFunctions.length ?? 0) > 0,
    isSriov: (await textOf(kernel, `${PCI}/${name}/sriov_totalvfs`)) !== undefined,
  }
}

/** An open device, as far as facts about its regions are read from it. */
export interface Opened {
  readonly name: string
  readonly fd: DeviceFd
  readonly regions: readonly Region[]
}

/** vfio.h: VFIO_PCI_CONFIG_REGION_INDEX */
const CONFIG_REGION = 7
/** The part of the configuration space that every PCI function has. */
const CONFIG_LENGTH = 256

/** The first 256 bytes of its configuration space; undefined where they cannot be read. */
export async function configOf(
  kernel: Kernel,
  { fd, regions }: Opened,
): Promise<Uint8Array | undefined> {
  const region = regions.find(({ index }) => index === CONFIG_REGION)
  if (region === undefined || region.size < BigInt(CONFIG_LENGTH)) return undefined
  const config = new Uint8Array(CONFIG_LENGTH)
  try {
    for (let at = 0; at < CONFIG_LENGTH; at += 4)
      config.set(await readRegion(kernel, fd, { region, offset: BigInt(at), length: 4 }), at)
    return config
  } catch {
    return undefined
  }
}

export async function regionFacts(
  kernel: Kernel,
  device: Opened,
  region: number,
): Promise<RegionFacts> {
  const [config, powerState, resources, iomem] = await Promise.all([
    configOf(kernel, device),
    textOf(kernel, `${PCI}/${device.name}/power_state`),
    textOf(kernel, `${PCI}/${device.name}/resource`),
    textOf(kernel, '/proc/iomem'),
  ])
  return {
    name: device.name,
    region,
    config,
    powerState: powerState?.trim(),
    bar: resources === undefined ? undefined : barOf(resources, region),
    iomem,
  }
}

/** sysfs-bus-pci `resource`: a line for each BAR, then the ROM, as `0x... 0x... 0x...`. */
function barOf(resources: string, region: number): RegionFacts['bar'] {
  const line = resources.split('\n')[region]
  const [start = 0n, last = 0n] = (line?.match(/0x[0-9a-f]+/g) ?? []).map(BigInt)
  return last === 0n ? undefined : { start, last }
}

export async function irqFacts(kernel: Kernel, name: string, wanted: string): Promise<IrqFacts> {
  return { name, wanted, interrupts: await textOf(kernel, '/proc/interrupts') }
}
