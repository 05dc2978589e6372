/**
 * Socket files. A socket gets its owner and mode under a temporary name and is then renamed to its
 * own, so that no client can connect in between, and the stale file of a daemon that was killed is
 * replaced in the same step. A file that a running daemon answers on is left alone.
 */
import { chmodSync, chownSync, lstatSync, renameSync, rmSync } from 'node:fs'

export interface SocketFile {
  readonly path: string
  /** Permission bits. */
  readonly mode: number
  /** Who may connect besides the user of the daemon, when `mode` has the group bits. */
  readonly gid?: number | undefined
}

/** How one kind of socket is bound, and how to find out whether a process listens. */
export interface Binder<Socket> {
  bind(path: string): Promise<Socket>
  answers(path: string): Promise<boolean>
}

/** sun_path of sockaddr_un, less the byte that ends it: unix(7). Some versions of Node cut a longer one. */
const PATH_MAX = 107

const isSocket = (path: string): boolean | undefined =>
  lstatSync(path, { throwIfNoEntry: false })?.isSocket()

export const placeSocket = async <Socket>(
  { path, mode, gid }: SocketFile,
  { bind, answers }: Binder<Socket>,
): Promise<Socket> => {
  const temporary = `${path}.${process.pid}`
  const bytes = Buffer.byteLength(temporary)
  if (bytes > PATH_MAX)
    throw new Error(
      `Cannot listen on ${path}: the kernel takes ${PATH_MAX} bytes of a path, and the temporary name ${temporary} has ${bytes}; choose a shorter one`,
    )
  const found = isSocket(path)
  if (found === false) throw new Error(`Cannot listen on ${path}: it exists and is not a socket`)
  if (found === true && (await answers(path)))
    throw new Error(`Cannot listen on ${path}: another process listens there; stop it first`)
  rmSync(temporary, { force: true })
  const socket = await bind(temporary)
  if (gid !== undefined) chownSync(temporary, -1, gid)
  chmodSync(temporary, mode)
  renameSync(temporary, path)
  return socket
}

/** Removes the file on the way out. */
export const removeSocket = ({ path }: SocketFile): void => rmSync(path, { force: true })
