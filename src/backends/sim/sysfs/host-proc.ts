/** What process 1 shows of the host: its root, its mounts, the addresses and routes of its network; and swap. */

import { endianness } from 'node:os'
import { attribute, directory, link, type Node } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'
import type { InterfaceSpec } from '../spec/host-spec.ts'
import { blockNumbers } from './host-parts.ts'

type Entries = Record<string, () => Node>

const file = (content: () => string) => () => attribute(content)

/** /proc/1. */
export const processOne = (machine: Machine): Entries => ({
  comm: file(() => 'init\n'),
  fd: () => directory(() => ({})),
  root: () => link('/'),
  mountinfo: file(() => mountinfo(machine)),
  net: () =>
    directory(() => ({
      dev: file(() => 'Inter-|   Receive\n'),
      route: file(() => ROUTE_HEAD + interfacesOf(machine).map(routes).join('')),
      fib_trie: file(() => `Local:\n${interfacesOf(machine).map(localAddresses).join('')}`),
      if_inet6: file(() => interfacesOf(machine).map(addresses6).join('')),
      ipv6_route: file(() => ''),
    })),
})

/** /proc/meminfo, /proc/swaps and /proc/filesystems. */
export const hostFiles = (machine: Machine): Entries => ({
  swaps: file(
    () =>
      'Filename Type Size Used Priority\n' +
      (machine.spec.host?.swaps ?? [])
        .map((name) => `/dev/${name} partition 1048572 0 -2\n`)
        .join(''),
  ),
  meminfo: file(() => `MemTotal: ${machine.spec.memoryBytes / 1024n} kB\n`),
  filesystems: file(() => 'nodev\tsysfs\n\text4\n'),
})

const mountinfo = (machine: Machine): string => {
  const numbers = blockNumbers(machine)
  const labels = new Map(
    (machine.spec.host?.volumes ?? []).map(({ name, label }) => [name, label] as const),
  )
  return (machine.spec.host?.mounts ?? [])
    .map(({ device, point, type }, n) => {
      const label = labels.get(device)
      const source = label === undefined ? `/dev/${device}` : `/dev/mapper/${label}`
      return `${20 + n} 1 ${numbers.get(device)} / ${point.replaceAll(' ', '\\040')} rw,relatime - ${type} ${source} rw\n`
    })
    .join('')
}

const interfacesOf = ({ pci }: Machine): InterfaceSpec[] =>
  [...pci.functions.values()]
    .flatMap(({ spec }) => spec.interfaces ?? [])
    .filter(({ isUp, isElsewhere }) => isUp && !isElsewhere)

const ROUTE_HEAD =
  'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n'

const isV4 = (address: string): boolean => !address.includes(':')

const number4 = (address: string): number =>
  address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)

const mask4 = (bits: number): number => 2 ** 32 - 2 ** (32 - bits)

const text4 = (value: number): string =>
  [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.')

/** In the order of this machine's bytes. */
const hex4 = (value: number): string => {
  const bytes = value.toString(16).padStart(8, '0').match(/../g) ?? []
  return (endianness() === 'LE' ? bytes.reverse() : bytes).join('').toUpperCase()
}

interface Network {
  readonly address: number
  readonly mask: number
}

const networksOf = ({ addresses }: InterfaceSpec): Network[] =>
  addresses.filter(isV4).map((each) => {
    const [address = '', bits = '32'] = each.split('/')
    return { address: number4(address), mask: mask4(Number(bits)) }
  })

const network = ({ address, mask }: Network): number => Number(BigInt(address) & BigInt(mask))

const routes = (each: InterfaceSpec): string => {
  const row = (to: number, by: number, flags: string, mask: number) =>
    `${each.name}\t${hex4(to)}\t${hex4(by)}\t${flags}\t0\t0\t100\t${hex4(mask)}\t0\t0\t0\n`
  const networks = networksOf(each)
  const [first] = networks
  const gateway = first === undefined ? 0 : network(first) + 1
  return [
    ...(each.hasDefaultRoute ? [row(0, gateway, '0003', 0)] : []),
    ...networks.map((one) => row(network(one), 0, '0001', one.mask)),
  ].join('')
}

const localAddresses = (each: InterfaceSpec): string =>
  networksOf(each)
    .map(({ address }) => `     |-- ${text4(address)}\n        /32 host LOCAL\n`)
    .join('')

/** Every interface that is up has an address of the link besides. */
const addresses6 = (each: InterfaceSpec): string =>
  ['fe80::1/64', ...each.addresses.filter((address) => !isV4(address))]
    .map((address) => {
      const [host = '', bits = '64'] = address.split('/')
      const scope = host.startsWith('fe80') ? '20' : '00'
      const length = Number(bits).toString(16).padStart(2, '0')
      return `${hex6(host)} 02 ${length} ${scope} 80 ${each.name.padStart(8)}\n`
    })
    .join('')

const hex6 = (address: string): string => {
  const [head = '', tail] = address.split('::')
  const groups = (part: string) => part.split(':').filter((group) => group !== '')
  const [first, last] = [groups(head), groups(tail ?? '')]
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => '0')
  return [...first, ...zeros, ...last].map((group) => group.padStart(4, '0')).join('')
}
