/** migrate caps, save, load: the state of one device. */
import type { Command } from 'commander'
import { withDevice } from '../borrowed-device.ts'
import { loadState } from '../load-state.ts'
import { bytesText } from '../numbers.ts'
import { saveState } from '../save-state.ts'
import { action, type CommandSession } from '../session.ts'
import { isStandardOutput } from '../state-output.ts'
import { enumText, propertiesText } from '../table.ts'

const ABOUT_SAVE = `
Goes through PRE_COPY while the device runs, where it can, then PRE_COPY_P2P, then STOP_COPY. The
daemon resets a device when it opens it, so what is saved is what a reset leaves. The file is the
stream of the device, byte for byte, readable for its owner alone; it appears under its name once it
is complete and on disk. A device node or a pipe is written to as it is. With - the bytes go to
standard output and the summary to standard error.`

const ABOUT_LOAD = `
Sets RESUMING, writes the file, and sets RUNNING, where the device loads and checks it. A device
that refuses is reset. When the command ends the daemon resets the device as well: what lasts is
what a reset leaves.`

const stateText = (state: string): string => state.replace('MIGRATION_STATE_', '')

const caps = (session: CommandSession, name: string): Promise<void> =>
  withDevice(session, name, async ({ client, device, output, signal }) => {
    const capabilities = await client.migration.getMigrationCapabilities({ name }, { signal })
    const { state } = await client.migration.getMigrationState({ name }, { signal })
    output.answer({ ...capabilities, state }, () => {
      const yesNo = (value: boolean) => (value ? 'yes' : 'no')
      return propertiesText([
        ['device', device.name],
        ['state', stateText(state)],
        ['STOP_COPY', yesNo(capabilities.stopCopy)],
        ['P2P', yesNo(capabilities.p2p)],
        ['PRE_COPY', yesNo(capabilities.preCopy)],
        ['states', capabilities.states.map(stateText).join(', ')],
        ['DMA logging', yesNo(capabilities.dmaLogging)],
      ])
    })
  })

interface SaveOptions {
  readonly force?: boolean
}

const save = (
  session: CommandSession,
  name: string,
  file: string,
  { force = false }: SaveOptions,
): Promise<void> =>
  withDevice(session, name, async (borrowed) => {
    const saved = await saveState(borrowed, { path: file, force })
    const output = isStandardOutput(file) ? session.output.onStderr() : session.output
    output.answer(saved, () =>
      propertiesText([
        ['device', borrowed.device.name],
        ['file', file],
        ['path', saved.path.map(stateText).join(' -> ')],
        ['pre-copied', bytesText(saved.precopyBytes)],
        ['total', bytesText(saved.bytes)],
        ['sha256', saved.sha256],
      ]),
    )
  })

const load = (session: CommandSession, name: string, file: string): Promise<void> =>
  withDevice(session, name, async (borrowed) => {
    const loaded = await loadState(borrowed, file)
    session.output.answer(loaded, () =>
      propertiesText([
        ['device', borrowed.device.name],
        ['file', file],
        ['total', bytesText(loaded.bytes)],
        ['sha256', loaded.sha256],
        ['state', enumText('MIGRATION_STATE_', loaded.state).toUpperCase()],
      ]),
    )
  })

export const addMigrateCommands = (program: Command): void => {
  const migrate = program.command('migrate').description('save and load the state of a device')
  migrate
    .command('caps')
    .description('show what a device can do')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .action(action(caps))
  migrate
    .command('save')
    .description('write the state of a device to a file')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .argument('<file>', 'where to; - is standard output')
    .option('--force', 'replace a file that exists')
    .addHelpText('after', ABOUT_SAVE)
    .action(action(save, { isTransfer: true }))
  migrate
    .command('load')
    .description('load the state of a device from a file')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .argument('<file>', 'where from; - is standard input')
    .addHelpText('after', ABOUT_LOAD)
    .action(action(load, { isTransfer: true }))
}
