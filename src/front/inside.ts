/** A front in the process of the owner: for tests, where nothing has to be kept apart. */
import { LINK_MEMORY } from '../link/slots.ts'
import { type Channels, channelsOf, openChannels } from '../os/channels.ts'
import { Front } from './front.ts'

/** The ends of the owner; the front ends when one of them is closed, or with `kill`. */
export const startInside = (
  onExit: (how: string) => void,
): Channels & { readonly front: Front; readonly memory: Buffer; readonly kill: () => void } => {
  const { owner, other } = openChannels()
  const memory = Buffer.alloc(LINK_MEMORY)
  const front = new Front({ ...channelsOf(other), memory, onEnd: () => onExit('it has ended') })
  return { ...channelsOf(owner), front, memory, kill: () => front.end() }
}
