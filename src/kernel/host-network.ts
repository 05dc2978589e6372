/** Network interfaces of the host, their addresses and routes: sysfs, and /proc/PID/net of process 1. */

import { endianness } from 'node:os'
import type { NetworkInterface, Networks, Unseen } from '../rules/host-use.ts'
import type { HostView } from './host-view.ts'

const IFF_UP = 0x1
/** route.h */
const RTF_REJECT = 0x200
/** ipv6_route.h */
const RTF_ANYCAST = 0x10_0000
const RTF_LOCAL = 0x8000_0000

export async function networkInterfaces(view: HostView): Promise<NetworkInterface[] | Unseen> {
  const devices = await view.devices('/sys/class/net')
  if (!Array.isArray(devices)) return devices
  return Promise.all(
    devices
      .filter(({ below }) => below.length > 0)
      .map(async ({ name, path, below }) => ({
        name,
        below,
        isUp: (Number((await view.line(`${path}/flags`)) ?? 0) & IFF_UP) !== 0,
        master: await view.linked(`${path}/master`),
        uppers: (await view.names(path))
          .filter((each) => each.startsWith('upper_'))
          .map((each) => each.slice('upper_'.length)),
      })),
  )
}

/**
 * Whether the function has an interface that is not among those of this view: sysfs keeps the
 * directory of its interfaces, and shows in it those of one network namespace.
 */
export async function hidesInterface(view: HostView, address: string): Promise<boolean> {
  const device = `/sys/bus/pci/devices/${address}`
  const virtio = (await view.names(device)).filter((name) => /^virtio\d+$/.test(name))
  for (const directory of ['', ...virtio.map((name) => `/${name}`)]) {
    const names = await view.kernel.readDir(`${view.root}${device}${directory}/net`)
    if (typeof names !== 'number' && names.length === 0) return true
  }
  return false
}

/** Of the network namespace of process 1, or else of the daemon's. */
export async function networks(view: HostView): Promise<Networks | Unseen> {
  const directory = (await isThere(view, '/proc/1/net')) ? '/proc/1/net' : '/proc/self/net'
  if (!(await isThere(view, directory))) return { unseen: '/proc/1/net: not to be read' }
  const read = async (file: string): Promise<string> => {
    const bytes = await view.kernel.readFile(`${directory}/${file}`)
    return typeof bytes === 'number' ? '' : new TextDecoder().decode(bytes)
  }
  const [routes4, trie, addresses6, routes6] = await Promise.all(
    ['route', 'fib_trie', 'if_inet6', 'ipv6_route'].map(read),
  )
  const found4 = parseRoutes(routes4 ?? '')
  const addresses = new Map<string, string[]>()
  const routes = new Map<string, string[]>()
  for (const { name, address } of [
    ...namedAddresses(localAddresses(trie ?? ''), found4),
    ...parseAddresses6(addresses6 ?? ''),
  ])
    append(addresses, name, address)
  for (const { name, route } of [
    ...found4.map(({ name, network, bits }) => ({ name, route: routeText(network, bits) })),
    ...parseRoutes6(routes6 ?? ''),
  ])
    append(routes, name, route)
  return { addresses, routes }
}

const isThere = async ({ kernel }: HostView, directory: string): Promise<boolean> =>
  typeof (await kernel.readFile(`${directory}/dev`)) !== 'number'

function append(map: Map<string, string[]>, name: string, text: string): void {
  const known = map.get(name) ?? []
  if (!known.includes(text)) map.set(name, [...known, text])
}

interface Route4 {
  readonly name: string
  readonly network: number
  readonly bits: number
  /** Whether hosts of the network are reached without a gateway. */
  readonly isDirect: boolean
}

/** A number of `route`: in the order of this machine's bytes. */
function number4(hex: string): number {
  const bytes = hex.match(/../g) ?? []
  return Number.parseInt((endianness() === 'LE' ? bytes.reverse() : bytes).join(''), 16)
}

const bitsOf = (mask: number): number => mask.toString(2).replaceAll('0', '').length

const text4 = (address: number): string =>
  [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')

const routeText = (network: number, bits: number): string =>
  bits === 0 ? 'default' : `${text4(network)}/${bits}`

/** The main table: `eth0 00000000 0202000A 0003 0 0 100 00000000 ...`, after a head. */
function parseRoutes(text: string): Route4[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((row) => {
      const [name = '', network, gateway, flags, , , , mask] = row.trim().split(/\s+/)
      if (network === undefined || gateway === undefined || mask === undefined) return []
      if ((Number.parseInt(flags ?? '', 16) & RTF_REJECT) !== 0) return []
      return [
        {
          name,
          network: number4(network),
          bits: bitsOf(number4(mask)),
          isDirect: number4(gateway) === 0,
        },
      ]
    })
}

/** The addresses of the host, of whichever interface: `|-- 10.0.0.2` and then `/32 host LOCAL`. */
function localAddresses(trie: string): number[] {
  const found = new Set<number>()
  let address = ''
  for (const row of trie.split('\n')) {
    address = /\|-- (\S+)/.exec(row)?.[1] ?? address
    if (!/\/32 host LOCAL/.test(row) || address.startsWith('127.')) continue
    found.add(address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0))
  }
  return [...found]
}

/** The kernel lists addresses without interfaces: the route to the network of each has its name. */
const namedAddresses = (addresses: readonly number[], routes: readonly Route4[]) =>
  addresses.flatMap((address) =>
    routes
      .filter(({ isDirect, network, bits }) => isDirect && bits > 0 && isIn(address, network, bits))
      .map(({ name, bits }) => ({ name, address: `${text4(address)}/${bits}` })),
  )

const isIn = (address: number, network: number, bits: number): boolean =>
  Math.floor(address / 2 ** (32 - bits)) === Math.floor(network / 2 ** (32 - bits))

const text6 = (hex: string): string =>
  new URL(`http://[${(hex.match(/.{4}/g) ?? []).join(':')}]/`).hostname.slice(1, -1)

/** Every interface that is up has an address of its link, which says nothing. */
const isOfLink = (hex: string): boolean => /^fe[89ab]/.test(hex)

/** `ADDRESS index bits scope flags name`, all but the name in hexadecimal. */
const parseAddresses6 = (text: string) =>
  text.split('\n').flatMap((row) => {
    const [hex = '', , bits = '', , , name = ''] = row.trim().split(/\s+/)
    if (name === '' || name === 'lo' || isOfLink(hex)) return []
    return [{ name, address: `${text6(hex)}/${Number.parseInt(bits, 16)}` }]
  })

/** `NETWORK bits SOURCE bits GATEWAY metric references uses flags name`. */
const parseRoutes6 = (text: string) =>
  text.split('\n').flatMap((row) => {
    const [hex = '', bits = '', , , , , , , flags = '', name = ''] = row.trim().split(/\s+/)
    const isOwn = (BigInt(`0x${flags || '0'}`) & BigInt(RTF_REJECT | RTF_ANYCAST)) !== 0n
    const isLocal = (BigInt(`0x${flags || '0'}`) & BigInt(RTF_LOCAL)) !== 0n
    if (name === '' || name === 'lo' || isOwn || isLocal) return []
    const length = Number.parseInt(bits, 16)
    if (length > 0 && (isOfLink(hex) || hex.startsWith('ff'))) return []
    return [{ name, route: length === 0 ? 'default' : `${text6(hex)}/${length}` }]
  })
