/**
 * Fds that clients send. Tickets are for memory and eventfds, whose close never sleeps; a file of any
 * other kind may be of a file system that the client serves itself, or a socket that lingers. Such a one
 * stays in the front, and the owner judges a stand-in of its kind.
 */
import { openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isEventfd } from './eventfd.ts'
import { fileIdentity } from './file-identity.ts'
import { sys } from './libc.ts'

/** By the byte that stands for the kind. */
const KINDS = ['taken', 'file', 'other'] as const

export type SentKind = (typeof KINDS)[number]

const STAND_INS = {
  file: openSync(fileURLToPath(import.meta.url), 'r'),
  other: openSync('/dev/null', 'r'),
} as const

/** Asks nothing of the file system behind it. */
export const sentKind = (fd: number): SentKind => {
  if (isEventfd(fd)) return 'taken'
  const identity = fileIdentity(fd)
  if (typeof identity === 'number') return 'other'
  const { kind } = identity
  return kind === 'file' || kind === 'other' ? kind : 'taken'
}

/** What of the fds of a packet goes on, and a byte for each that says its kind. */
export const sortFds = (
  fds: readonly number[],
): { readonly kinds: Uint8Array; readonly taken: readonly number[] } => {
  const kinds = fds.map((fd) => sentKind(fd))
  return {
    kinds: Uint8Array.from(kinds, (kind) => KINDS.indexOf(kind)),
    taken: fds.filter((_, index) => kinds[index] === 'taken'),
  }
}

/**
 * The packet as its client sent it, with stand-ins: the caller's to close. Undefined where what came is not
 * what the kinds say; nothing is made then.
 */
export const wholePacket = (
  kinds: Uint8Array,
  taken: readonly number[],
): readonly number[] | undefined => {
  const known = [...kinds].map((kind) => KINDS[kind])
  const isAsSaid = known.filter((kind) => kind === 'taken').length === taken.length
  if (!isAsSaid || known.includes(undefined)) return undefined
  if (!taken.every((fd) => sentKind(fd) === 'taken')) return undefined
  const rest = [...taken]
  return known.map((kind) =>
    kind === 'file' || kind === 'other' ? sys.dup(STAND_INS[kind]) : (rest.shift() as number),
  )
}
