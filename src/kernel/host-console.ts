/** On which devices the host shows and reads its console: serial ports, framebuffers, graphics cards. */

import type { ConsoleDevice } from '../rules/host-use.ts'
import type { ClassDevice, HostView } from './host-view.ts'

const devicesOf = async (view: HostView, directory: string): Promise<readonly ClassDevice[]> => {
  const devices = await view.devices(directory)
  return Array.isArray(devices) ? devices : []
}

export interface Consoles {
  readonly devices: readonly ConsoleDevice[]
  /** The function whose picture the firmware set up, where the console is on that picture. */
  readonly boot: string | undefined
}

export async function consoles(
  view: HostView,
  functions: readonly { readonly name: string; readonly class: number }[],
): Promise<Consoles> {
  const [ttys, framebuffers, cards, drawn] = await Promise.all([
    serialPorts(view),
    devicesOf(view, '/sys/class/graphics'),
    devicesOf(view, '/sys/class/drm'),
    consoleDrivers(view),
  ])
  const shown = drawn.has('frame buffer') ? lowest(framebuffers) : undefined
  // Drawn on what the firmware set up: the text of a VGA, or a framebuffer that is below no function.
  const isOnBoot = drawn.has('VGA') || (shown !== undefined && shown.below.length === 0)
  return {
    devices: [
      ...ttys,
      ...framebuffers
        .filter(({ name }) => FRAMEBUFFER.test(name))
        .map(({ name, below }) => ({
          name,
          below,
          isConsole: name === shown?.name,
          node: `/dev/${name}`,
        })),
      // Those with more in their names are connectors.
      ...cards
        .filter(({ name }) => /^(card|renderD)\d+$/.test(name))
        .map(({ name, below }) => ({ name, below, isConsole: false, node: `/dev/dri/${name}` })),
    ].filter(({ below }) => below.length > 0),
    boot: isOnBoot ? await bootFunction(view, functions) : undefined,
  }
}

const FRAMEBUFFER = /^fb\d+$/

/** The kernel draws its console on the first of them. */
const lowest = (framebuffers: readonly ClassDevice[]): ClassDevice | undefined =>
  framebuffers
    .filter(({ name }) => FRAMEBUFFER.test(name))
    .toSorted((a, b) => Number(a.name.slice(2)) - Number(b.name.slice(2)))[0]

async function serialPorts(view: HostView): Promise<ConsoleDevice[]> {
  const active = (await view.line('/sys/class/tty/console/active'))?.split(' ') ?? []
  const ports = await devicesOf(view, '/sys/class/tty')
  return ports.map(({ name, below }) => ({
    name,
    below,
    isConsole: active.includes(name),
    node: `/dev/${name}`,
  }))
}

/** What the virtual consoles are drawn by: sysfs says `(M) frame buffer device` or `(S) VGA+`. */
async function consoleDrivers(view: HostView): Promise<Set<'frame buffer' | 'VGA'>> {
  const directory = '/sys/class/vtconsole'
  const found = new Set<'frame buffer' | 'VGA'>()
  for (const name of await view.names(directory)) {
    if ((await view.line(`${directory}/${name}/bind`)) !== '1') continue
    const title = (await view.line(`${directory}/${name}/name`)) ?? ''
    if (title.includes('frame buffer')) found.add('frame buffer')
    if (title.includes('VGA')) found.add('VGA')
  }
  return found
}

const DISPLAY = 0x03

async function bootFunction(
  view: HostView,
  functions: readonly { readonly name: string; readonly class: number }[],
): Promise<string | undefined> {
  for (const { name } of functions.filter((each) => each.class >> 16 === DISPLAY))
    if ((await view.line(`/sys/bus/pci/devices/${name}/boot_vga`)) === '1') return name
  return undefined
}
