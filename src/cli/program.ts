/** The commands of vfioctl as one tree; docs/vfioctl.md is held equal to it. */
import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { DEFAULT_SOCKET } from '../client/client.ts'
import { addAdminCommands } from './commands/admin.ts'
import { addBindCommands } from './commands/bind.ts'
import { addDeviceCommands } from './commands/device.ts'
import { addDirtyCommands } from './commands/dirty.ts'
import { addGroupsCommands } from './commands/groups.ts'
import { addIrqCommands } from './commands/irq.ts'
import { addMappingsCommand } from './commands/mappings.ts'
import { addMigrateCommands } from './commands/migrate.ts'
import { addOwnershipCommands } from './commands/ownership.ts'
import { addRegionCommands } from './commands/region.ts'
import { addSpacesCommands } from './commands/spaces.ts'
import { parseDuration } from './numbers.ts'

const ABOUT = `
Numbers may be decimal or 0x, with K, M, G or T for powers of 1024.

Everything in vfiod belongs to the process that made it. A command that needs a device or an
address space takes it, acts, and gives it back when it ends, however it ends.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 124 the daemon did not
answer in time, 130 stopped by Ctrl-C.`

const version = (): string =>
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version

/** Throws a CommanderError where commander would exit. */
export const buildProgram = (): Command => {
  const program = new Command('vfioctl')
    .description('talk to vfiod, the daemon that owns VFIO on this host')
    .option('--socket <path>', `the daemon's socket (default: $VFIOD_SOCKET or ${DEFAULT_SOCKET})`)
    .option('--address <host:port>', 'a daemon on another host; needs the next three')
    .option('--ca <file>', 'PEM: who signed the certificate of that daemon')
    .option('--cert <file>', 'PEM: the certificate that says who this is')
    .option('--key <file>', 'PEM: its private key')
    .option(
      '--timeout <duration>',
      'how long to wait for an answer (default: 10s; 0 waits without end)',
      parseDuration,
    )
    .option(
      '--vf-token <uuid>',
      'opens a virtual function whose physical one has vfio-pci, or that one (better: $VFIOD_VF_TOKEN)',
    )
    .option('--json', "print the API's messages; errors are JSON on stderr as well")
    .version(version(), '--version', 'print the version')
    .addHelpText('after', ABOUT)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    // What goes wrong is reported in one place; see failure.ts.
    .configureOutput({ outputError: () => {} })
  addGroupsCommands(program)
  addBindCommands(program)
  addSpacesCommands(program)
  addMappingsCommand(program)
  addDeviceCommands(program)
  addRegionCommands(program)
  addIrqCommands(program)
  addDirtyCommands(program)
  addMigrateCommands(program)
  addOwnershipCommands(program)
  addAdminCommands(program)
  return program
}
