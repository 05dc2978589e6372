/**
 * A few fd numbers kept back for looking at the processes of clients: whether a client is still there
 * must not depend on how many fds the others use. A number is given up for the length of one look
 * and taken back afterwards.
 */

import { ERRNO } from '../base/errno.ts'
import { O_RDONLY, sys } from './libc.ts'

/** A look opens one file at a time; the others are for fds that the thread pool opens meanwhile. */
const RESERVED = 4

const reserved: number[] = []
let isKept = false

const refill = (): void => {
  while (isKept && reserved.length < RESERVED) {
    const fd = sys.openSync('/dev/null', O_RDONLY)
    if (fd < 0) return
    reserved.push(fd)
  }
}

/** Keeps the reserve from here on, until what it answers is called. */
export const keepFdReserve = (): (() => void) => {
  isKept = true
  refill()
  return () => {
    isKept = false
    for (const fd of reserved.splice(0)) sys.closeSync(fd)
  }
}

/** Opens an fd; where no number is left, in the place of a reserved one. For fds that are closed in
 * the same turn. */
export const withReserve = (open: () => number): number => {
  refill()
  let fd = open()
  while (fd === -ERRNO.EMFILE || fd === -ERRNO.ENFILE) {
    const given = reserved.pop()
    if (given === undefined) return fd
    sys.closeSync(given)
    fd = open()
  }
  return fd
}
