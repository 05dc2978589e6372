/**
 * Fronts as units of the service manager, which gives each its own user and sandbox
 * (systemd/vfiod-front.socket). The owner connects, and passes the front its end of the link on that
 * connection. bin/vfiod-front holds the connection for as long as the front runs, and ends the front when
 * the owner closes its side: so the owner ends a process of another user without a right to send signals.
 */
import { statSync } from 'node:fs'
import type { StartFront } from '../api/transport/running-front.ts'
import { errnoName } from '../base/errno.ts'
import { connectSeqpacket } from '../os/fd-passing.ts'
import { ConfigError } from './config-error.ts'
import { makeFrontEnds } from './front-ends.ts'

const HINT = 'start vfiod-front.socket, or unset front_socket'

/** Where nothing is wrong with the socket. */
const HINTS: Readonly<Record<string, string>> = {
  EAGAIN: 'systemd has accepted none of the last connections; look whether it hangs',
  EACCES: 'the daemon and the socket are to have one user',
  EMFILE: 'the daemon has no fds left; raise LimitNOFILE',
  ENFILE: 'the host has no fds left; raise fs.file-max',
}

/** What the message with the fds says: a packet without bytes would mean the end. */
const LINK = Buffer.from('link')

/** A ConfigError where there is no socket at this path, or where another user listens on it. */
const checkSocket = (path: string): void => {
  let found: { readonly uid: number; isSocket(): boolean }
  try {
    found = statSync(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError(`Cannot start fronts by ${path}: ${code}; ${HINT}`, code)
  }
  if (!found.isSocket())
    throw new ConfigError(`Cannot start fronts by ${path}: it is not a socket; ${HINT}`)
  if (found.uid !== 0 && found.uid !== process.geteuid?.())
    throw new ConfigError(
      `Cannot start fronts by ${path}: it belongs to uid ${found.uid}, who would read what clients send; ${HINT}`,
    )
}

/** Starts fronts by the socket at this path, and in no other way. */
export const frontUnits = (path: string): StartFront => {
  checkSocket(path)
  return (onExit) => {
    const refused = (answer: number): Error => {
      const name = errnoName(-answer)
      return new Error(`Cannot start a front by ${path}: ${name}; ${HINTS[name] ?? HINT}`)
    }
    const holder = connectSeqpacket(path)
    if (typeof holder === 'number') throw refused(holder)
    let ends: ReturnType<typeof makeFrontEnds>
    try {
      ends = makeFrontEnds()
    } catch (error) {
      holder.close()
      throw error
    }
    const sent = holder.send(LINK, ends.fds)
    if (sent < 0) {
      ends.discard()
      holder.close()
      throw refused(sent)
    }
    ends.given()
    void holder.receive().then(() => {
      holder.close()
      onExit('its unit has ended: journalctl -u "vfiod-front@*" says how')
    })
    return {
      ...ends.own,
      kill: () => {
        holder.endWriting()
        ends.free()
      },
    }
  }
}
