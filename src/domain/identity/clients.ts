/**
 * Who calls, and what belongs to whom. A client is an mm: the threads of a process and its vfork
 * children share it, a fork child and an exec'd image do not. The api room makes clients from what
 * the kernel says of a connection; nothing here believes a client about itself.
 */

import { VfiodError } from '../../base/error.ts'
import type { Grant } from '../../rules/policy.ts'

export interface Client {
  /** Unique for the life of the daemon. */
  readonly id: string
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** The command name of the process when it connected. */
  readonly command: string
  /** The name in the certificate of a client on another host, which has no pid and no uid here. */
  readonly remote?: string
  /** Whose quota it uses: `uid 1000`, or `remote NAME`. */
  readonly identity: string
  /** What the policy grants it; asked each time, since a policy may be reloaded. */
  readonly grant: Grant
}

/** `pid 812 (qemu), uid 1000` or `remote host-b`: how a client reads in messages. */
export const clientText = ({ pid, command, uid, remote }: Client): string =>
  remote === undefined ? `pid ${pid} (${command}), uid ${uid}` : `remote ${remote}`

/** Throw unless the caller owns the object. */
export function requireOwner(
  caller: Client,
  owner: Client,
  object: { readonly type: string; readonly name: string },
): void {
  if (caller.id === owner.id) return
  throw new VfiodError(
    'NOT_MM_OWNER',
    `Cannot use ${object.type} ${object.name}: it belongs to ${clientText(owner)}; the caller is ${clientText(caller)}`,
    { resource: { ...object, owner: clientText(owner) } },
  )
}
