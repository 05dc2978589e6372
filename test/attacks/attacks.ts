/** The attacks, by what they are for. Each is a process of a user who is not the bystander. */

import { existsSync } from 'node:fs'
import type { Attack } from './scene.ts'
import { UID } from './scene.ts'

/** FUSE as a user has it, by fusermount; a container may have none. */
export const hasFuse = existsSync('/dev/fuse')

const kinds = (as: Attack['as'], ...names: readonly string[]): Attack[] =>
  names.map((by) => ({ name: by, as, by }))

const hostile = (as: Attack['as'], name: string, ...by: readonly string[]): Attack => ({
  name,
  as,
  by,
})

const fuse = (how: string, socket: string): Attack => ({
  name: `files that are never read or closed, as ${how}`,
  as: 'nobody',
  by: ['fuse', how, socket, String(UID.nobody)],
  startsAsRoot: true,
})

const over = (way: 'tcp' | 'tls', as: Attack['as'], ...names: readonly string[]): Attack[] =>
  kinds(as, ...names).map((attack) => ({ ...attack, over: way }))

export const ATTACKS: Readonly<Record<string, readonly Attack[]>> = {
  'bytes that become more': [
    ...kinds('nobody', 'packed', 'packed by deflate', 'items', 'nested groups'),
    ...kinds('operator', 'items of other methods', 'unknown fields'),
  ],
  'turns of the event loop': [
    ...kinds('operator', 'long answers'),
    hostile('nobody', 'packets of one byte', 'packets', 'FDS', '1'),
    hostile('operator', 'packets of one byte, on 30 connections', 'packets', 'FDS', '30'),
    ...kinds('operator', 'batches', 'calls', 'cancelled calls'),
  ],
  'threads, by what a close waits for': [
    hostile('nobody', 'sockets that linger, from too many', 'linger', 'many', 'SOCKET'),
    hostile('nobody', 'sockets that linger, without a ticket', 'linger', 'packets', 'FDS'),
    hostile('nobody', 'sockets that linger, on one that stays', 'linger', 'kept', 'SOCKET'),
    hostile('operator', 'sockets that linger, from one that ends', 'linger', 'stream', 'SOCKET'),
    ...(hasFuse ? [fuse('packets', 'FDS'), fuse('stream', 'SOCKET')] : []),
  ],
  'looks at the client': [
    hostile('operator', 'one exec after another', 'exec', 'SOCKET'),
    hostile('observer', 'a held mmap lock', 'locked', 'SOCKET'),
  ],
  'file descriptors and processes': [
    hostile('nobody', 'processes without a role', 'processes', 'SOCKET', '300'),
    hostile('operator', 'processes that operate', 'processes', 'SOCKET', '300'),
    ...kinds('operator', 'tickets'),
  ],
  'connections and their frames': [
    ...kinds('nobody', 'bursts', 'bursts of calls', 'connects that hang up', 'idle connections'),
    ...kinds('operator', 'bursts', 'idle connections', 'half a preface', 'half a head'),
    ...kinds('operator', 'resets', 'pings', 'settings', 'acknowledged pings', 'empty data'),
    ...kinds('nobody', 'continuations', 'large headers'),
  ].map((attack) => ({ ...attack, name: `${attack.name}, ${attack.as}` })),
  'memory, by what is not ended or not read': [
    ...kinds('operator', 'uploads', 'unread events', 'unread groups', 'unread lists'),
    ...kinds('nobody', 'uploads without a role', 'unread reflection', 'unread health'),
  ],
  'places that others need': [
    ...kinds('observer', 'watches'),
    ...kinds('operator', 'sparse memory', 'small memory', 'tracked memory'),
  ],
}

/** From other hosts, which all have one front. */
export const NETWORK: Readonly<Record<string, readonly Attack[]>> = {
  'the network, without a certificate': over(
    'tcp',
    'nobody',
    ...['idle connections', 'handshakes', 'half handshakes', 'connects that hang up', 'pings'],
  ),
  'the network, with a certificate': over(
    'tls',
    'operator',
    ...['packed', 'bursts', 'items', 'batches', 'calls', 'cancelled calls', 'long answers'],
    ...['idle connections', 'connects that hang up', 'resets', 'large headers', 'half a head'],
    ...['uploads', 'unread events', 'unread lists', 'unread reflection', 'sparse memory'],
  ),
}
