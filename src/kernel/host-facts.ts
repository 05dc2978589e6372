/** Everything that says what the host uses its PCI functions for, in one look. */

import type { BlockDevice, HostFacts, OpenNode, Unseen } from '../rules/host-use.ts'
import { nodeOf } from '../rules/host-use.ts'
import { holdersAmong, holderText } from './holders.ts'
import { consoles } from './host-console.ts'
import { hidesInterface, networkInterfaces, networks } from './host-network.ts'
import { blockDevices, mounts, sharedFolders, swaps, zfsPools } from './host-storage.ts'
import { HostView } from './host-view.ts'
import type { Kernel } from './port.ts'
import type { HostDevice } from './sysfs.ts'

/** The functions are those that are asked about; what the host has besides is looked at too. */
export const hostFacts = (kernel: Kernel, functions: readonly HostDevice[]): Promise<HostFacts> =>
  kernel.hostLooks?.hostFacts(
    functions.filter(({ bus }) => bus === 'pci').map(({ name }) => name),
  ) ?? lookHere(kernel, functions)

async function lookHere(kernel: Kernel, functions: readonly HostDevice[]): Promise<HostFacts> {
  const asked = functions.filter(({ bus, driver }) => bus === 'pci' && driver !== undefined)
  const displays = functions.map(({ name, pci }) => ({ name, class: pci?.class ?? 0 }))
  const view = await HostView.of(kernel)
  const [blocks, interfaces, shares, console, hides, mounted, pools, swap, network] =
    await Promise.all([
      blockDevices(view),
      networkInterfaces(view),
      sharedFolders(view),
      consoles(view, displays),
      Promise.all(asked.map(({ name }) => hidesInterface(view, name))),
      mounts(view),
      zfsPools(view),
      swaps(view),
      networks(view),
    ])
  const names = new Set(functions.map(({ name }) => name))
  const isAsked = ({ below }: { readonly below: readonly string[] }) =>
    below.some((name) => names.has(name))
  const nodes = new Set([
    ...disksOf(blocks)
      .filter(isAsked)
      .map(({ name }) => nodeOf(name)),
    ...console.devices.filter(isAsked).map(({ node }) => node),
  ])
  return {
    blocks,
    interfaces,
    shares,
    consoles: console.devices,
    bootConsole: console.boot,
    hidden: asked.filter((_device, n) => hides[n]).map(({ name }) => name),
    mounts: mounted,
    pools,
    swaps: swap,
    networks: network,
    openNodes: await openNodes(kernel, nodes),
  }
}

const disksOf = (blocks: readonly BlockDevice[] | Unseen): readonly BlockDevice[] =>
  'unseen' in blocks ? [] : blocks

/** Which processes have any of the nodes open; no look at all where there are no nodes. */
async function openNodes(kernel: Kernel, nodes: ReadonlySet<string>): Promise<OpenNode[]> {
  if (nodes.size === 0) return []
  const holders = await holdersAmong(kernel, (path) => nodes.has(path))
  return holders.map((holder) => ({ holder: holderText(holder), path: holder.path }))
}
