/**
 * The ids of clients. They are derived from what the client is and not from when it came, so that a
 * daemon that is started anew gives a client the id that it had: a process from the boot, its pid,
 * its start and its image, for an exec makes it another client; a client on another host from the
 * name in its certificate. Short, and without characters that a shell or a terminal would take.
 */
import { createHash } from 'node:crypto'
import { bootId } from '../../os/process.ts'

const digest = (length: number, ...parts: readonly string[]): string =>
  createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, length)

/** `8123-5d1c0a9be2`: no two images of one pid have the same. */
export const processId = (
  { pid, startTime }: { readonly pid: number; readonly startTime: bigint },
  image: string,
): string => `${pid}-${digest(10, bootId(), String(pid), String(startTime), image)}`

/** `remote-` and 80 bits: names are chosen by others, so two must not be found that meet. */
export const remoteId = (name: string): string => `remote-${digest(20, name)}`
