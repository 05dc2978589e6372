#!/usr/bin/env node
/**
 * vfiod-host: the helpers of vfiod, one process for each of `looks` and `writes`. Under systemd the socket
 * is inherited; by hand it is named: `vfiod-host looks --socket PATH`.
 */
import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { linuxKernel } from '../backends/linux/kernel.ts'
import { errnoName } from '../base/errno.ts'
import { listenSeqpacket, SeqpacketListener } from '../os/fd-passing.ts'
import { leave } from '../os/leave.ts'
import { listenFds, notify } from '../os/notify.ts'
import { feedWatchdog } from '../os/watchdog.ts'
import { serveLooks } from './looks.ts'
import type { Serves } from './requests.ts'
import { HelperServer } from './server.ts'
import { serveWrites } from './writes.ts'

const log = (line: string): void => void process.stderr.write(`vfiod-host: ${line}\n`)

const fail = (why: string): never => {
  log(why)
  process.exit(78)
}

const program = new Command('vfiod-host')
  .description('Does for vfiod what needs rights: looks at processes, or writes to sysfs.')
  .argument('<what>', 'looks or writes')
  .addOption(new Option('--socket <path>', 'where to listen, if no socket is inherited'))
  .parse()
const [what = ''] = program.args
const { socket } = program.opts<{ readonly socket?: string }>()
if (what !== 'looks' && what !== 'writes') fail(`"${what}" is neither looks nor writes`)

const listen = (): SeqpacketListener => {
  const [inherited] = listenFds()
  if (inherited !== undefined) return new SeqpacketListener(inherited.fd)
  if (socket === undefined) return fail('no socket is inherited, and --socket names none')
  // The socket is for this user only.
  process.umask(0o177)
  const listener = listenSeqpacket(socket)
  if (typeof listener === 'number')
    return fail(`cannot listen on ${socket}: ${errnoName(-listener)}`)
  return listener
}

const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { readonly version: string }
const kernel = linuxKernel()
const server = new HelperServer({
  listener: listen(),
  serves: what as Serves,
  serve: what === 'looks' ? serveLooks(kernel) : serveWrites(kernel),
  version,
  // The daemon is root's, also where the helper is not.
  uids: [0],
  log,
})
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => {
    server.close()
    leave(0)
  })
feedWatchdog(process.env)
notify('READY=1')
process.stdout.write(`vfiod-host: ready for ${what}\n`)
