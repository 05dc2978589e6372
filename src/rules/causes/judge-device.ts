/** Why a device cannot be opened, accessed or armed, judged by its registers and by sysfs. */

import { hex } from '../../base/units.ts'
import type { CauseId } from './catalog.ts'
import { ruledOut, type Verdict } from './cause.ts'
import {
  PCI_CAP_ID_PM,
  PCI_COMMAND,
  PCI_COMMAND_MEMORY,
  PCI_PM_CTRL,
  pciCapabilities,
  word,
} from './pci-config.ts'

/** Undefined is what cannot be told. */
export interface DeviceFacts {
  readonly name: string
  /** Whether sysfs has it at all. */
  readonly exists: boolean | undefined
  readonly driver: string | undefined
  readonly isVfio: boolean
  /** The physical function of a virtual one. */
  readonly physical: { readonly name: string; readonly driver: string | undefined } | undefined
  /** Whether virtual functions of it are on. */
  readonly hasVirtual: boolean
  /** Whether it has the capability SR-IOV. */
  readonly isSriov: boolean
}

const isVfioPci = (driver: string | undefined): boolean => driver?.includes('vfio') ?? false

export interface EnableFacts extends DeviceFacts {
  /** Whether the caller gave a VF token. */
  readonly hasToken: boolean
}

/** Whose token opens the function; undefined for a function that opens without one. */
const tokenOwner = ({ name, physical, hasVirtual }: DeviceFacts): string | undefined => {
  if (physical !== undefined) return isVfioPci(physical.driver) ? physical.name : undefined
  return hasVirtual ? name : undefined
}

/** vfio_pci_validate_vf_token() */
function judgeToken(facts: EnableFacts): Verdict<CauseId>[] {
  const { name, physical, hasToken, isSriov } = facts
  const owner = tokenOwner(facts)
  if (!hasToken) {
    const others = ruledOut<CauseId>('vf-token-wrong', 'vf-token-unused')
    if (owner === undefined) return others
    const found =
      physical === undefined
        ? `${name} is a physical function whose virtual functions are in use, and then it opens with the VF token only`
        : `${name} is a virtual function of ${owner}, which is bound to ${physical.driver}, and then it opens with the VF token of ${owner} only`
    const fix = `pass vf_token: the token with which the user of ${owner} has opened it`
    const blockers =
      physical === undefined ? [] : [{ subject: owner, found: `bound to ${physical.driver}`, fix }]
    return [{ cause: 'vf-token-missing', isSo: true, found, fix, blockers }, ...others]
  }
  if (owner !== undefined) {
    const found = `the VF token that was given is not that of ${owner}`
    const fix = `pass the token with which the user of ${owner} has opened it`
    return [
      { cause: 'vf-token-wrong', isSo: true, found, fix },
      ...ruledOut<CauseId>('vf-token-missing', 'vf-token-unused'),
    ]
  }
  if (physical === undefined && isSriov) return ruledOut('vf-token-missing', 'vf-token-unused')
  const found =
    physical === undefined
      ? `${name} does not have SR-IOV, and takes no VF token`
      : `${physical.name}, of which ${name} is a virtual function, is not bound to vfio-pci, and then ${name} takes no VF token`
  return [{ cause: 'vf-token-unused', isSo: true, found }, ...ruledOut<CauseId>('vf-token-missing')]
}

/** For VFIO_GROUP_GET_DEVICE_FD. */
export function judgeEnable(facts: EnableFacts): Verdict<CauseId>[] {
  const { name, exists, driver, isVfio } = facts
  const verdicts = judgeToken(facts)
  if (exists === false) {
    const found = `${name} is not there any more`
    verdicts.push({ cause: 'device-not-in-group', isSo: true, found })
  } else if (exists === true && !isVfio) {
    const found = `${name} has ${driver === undefined ? 'no driver' : `the driver ${driver}`} by now`
    verdicts.push({ cause: 'device-not-in-group', isSo: true, found, fix: 'bind it again' })
  } else if (exists === true) verdicts.push(...ruledOut<CauseId>('device-not-in-group'))
  return verdicts
}

/** For a write to sriov_numvfs; undefined for a device that is not there. */
export function judgeSriov(
  name: string,
  device: { readonly driver: string | undefined } | undefined,
): Verdict<CauseId>[] {
  if (device === undefined) return ruledOut('sriov-unsupported')
  const { driver } = device
  const others = ruledOut<CauseId>('sysfs-missing')
  if (driver === undefined) {
    const found = `${name} has no driver, and it is a driver that makes virtual functions`
    return [{ cause: 'sriov-unsupported', isSo: true, found }, ...others]
  }
  const found = `its driver ${driver} makes no virtual functions`
  const fix = isVfioPci(driver)
    ? 'write Y to /sys/module/vfio_pci/parameters/enable_sriov, or give it the driver of its vendor'
    : 'give it a driver that does'
  return [{ cause: 'sriov-unsupported', isSo: true, found, fix }, ...others]
}

/** Where type1 has attached the group already, its IOMMU is not the cause. */
export const judgeOpenOfType1 = (): Verdict<CauseId>[] =>
  ruledOut(
    ...([
      'firmware-region',
      'iommu-incompatible',
      'interrupts-not-isolated',
      'no-iommu-rawio',
      'group-domain-in-use',
    ] as const),
  )

/** Undefined is what cannot be told. */
export interface RegionFacts {
  readonly name: string
  /** The index of the region: 0 to 5 are BARs. */
  readonly region: number
  /** The first 256 bytes of the configuration space, as the driver shows them. */
  readonly config: Uint8Array | undefined
  /** `power_state` of sysfs: D0, D3hot, D3cold, unknown. */
  readonly powerState: string | undefined
  /** Where the BAR is in the addresses of the host; undefined for one that is not. */
  readonly bar: { readonly start: bigint; readonly last: bigint } | undefined
  /** /proc/iomem. */
  readonly iomem: string | undefined
}

const GONE = 0xffff
const BARS = 6

/** The D-state that PMCSR says; undefined for a device without power management. */
export function powerStateOf(config: Uint8Array): number | undefined {
  for (const { id, at } of pciCapabilities(config))
    if (id === PCI_CAP_ID_PM) return word(config, at + PCI_PM_CTRL) & 3
  return undefined
}

/** For pread and pwrite of a region. */
export function judgeRegion(facts: RegionFacts): Verdict<CauseId>[] {
  return [...judgePower(facts), ...judgeDecoding(facts), ...judgeClaim(facts)]
}

function judgePower({ name, config, powerState }: RegionFacts): Verdict<CauseId>[] {
  if (config !== undefined && word(config, 0) === GONE) {
    const found = `${name} answers no access to its configuration space either`
    return [{ cause: 'device-gone', isSo: true, found }]
  }
  const inConfig = config === undefined ? undefined : powerStateOf(config)
  const isCold = powerState === 'D3cold'
  if (inConfig === 3 || isCold || powerState === 'D3hot') {
    const where = inConfig === 3 ? 'by its PMCSR' : 'by power_state of sysfs'
    const state = isCold ? 'D3cold' : 'D3hot'
    const found = `${name} is in ${state} ${where}, in which it answers no access to a region`
    return [{ cause: 'device-asleep', isSo: true, found }]
  }
  // It answers, so it is there and awake.
  if (config === undefined) return powerState === 'D0' ? ruledOut('device-asleep') : []
  return ruledOut('device-gone', 'device-asleep', 'device-does-not-wake')
}

function judgeDecoding({ name, region, config }: RegionFacts): Verdict<CauseId>[] {
  if (region > BARS) return ruledOut('decoding-off')
  if (config === undefined || word(config, 0) === GONE) return []
  const command = word(config, PCI_COMMAND)
  if ((command & PCI_COMMAND_MEMORY) !== 0) return ruledOut('decoding-off')
  return [
    {
      cause: 'decoding-off',
      isSo: true,
      found: `memory decoding is off in the COMMAND register of ${name} (${hex(command)})`,
    },
  ]
}

function judgeClaim({ region, name, bar, iomem }: RegionFacts): Verdict<CauseId>[] {
  if (bar === undefined || iomem === undefined) return []
  const claimant = claimantOf(iomem, bar, name)
  if (claimant === undefined) return []
  return [
    {
      cause: 'region-claimed',
      isSo: true,
      found: `region ${region} of ${name} is claimed by ${claimant} (/proc/iomem)`,
      fix: `make ${claimant} let go of it; a boot framebuffer ends with video=efifb:off, or when its driver is unbound`,
      resource: { type: 'device', name, owner: claimant },
    },
  ]
}

/** What vfio-pci has claimed itself. */
const OWN = /^vfio/

/**
 * The driver that has claimed a part of a range, by the text of /proc/iomem: what lies inside of the
 * range and is not the device itself. Without CAP_SYS_ADMIN every address there reads as zero.
 */
export function claimantOf(
  iomem: string,
  range: { readonly start: bigint; readonly last: bigint },
  device: string,
): string | undefined {
  for (const [, start, last, owner = ''] of iomem.matchAll(
    /^ *([0-9a-f]+)-([0-9a-f]+) : (.*)$/gm,
  )) {
    const [first, end] = [BigInt(`0x${start}`), BigInt(`0x${last}`)]
    if (end === 0n || first < range.start || end > range.last) continue
    if (owner !== device && !owner.startsWith('PCI Bus') && !OWN.test(owner)) return owner
  }
  return undefined
}

/** Undefined is what cannot be told. */
export interface IrqFacts {
  readonly name: string
  /** The name of the index that is asked for: INTX, MSI, MSIX. */
  readonly wanted: string
  /** /proc/interrupts. */
  readonly interrupts: string | undefined
}

const KINDS: Readonly<Record<string, string>> = { intx: 'INTX', msi: 'MSI', msix: 'MSIX' }

/** For VFIO_DEVICE_SET_IRQS: vfio-pci names its interrupts vfio-msi[0](0000:00:04.0). */
export function judgeIrqs({ name, wanted, interrupts }: IrqFacts): Verdict<CauseId>[] {
  if (interrupts === undefined || !Object.values(KINDS).includes(wanted)) return []
  const armed = [...interrupts.matchAll(/vfio-(intx|msix|msi)(?:\[\d+\])?\(([^)]*)\)/g)]
    .filter(([, , device]) => device === name)
    .map(([, kind = '']) => KINDS[kind])
  const other = armed.find((kind) => kind !== wanted)
  if (other === undefined) return ruledOut('other-index-armed')
  return [
    {
      cause: 'other-index-armed',
      isSo: true,
      found: `${other} of ${name} is enabled (/proc/interrupts), which vfiod did not do: an exported fd has, and a device has one of INTX, MSI and MSIX at a time`,
      fix: `disable ${other} where the fd is`,
      resource: { type: 'device', name },
    },
  ]
}
