/** region read, region write: the registers and the memory of a device. */
import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { hex } from '../../base/units.ts'
import { withDevice } from '../borrowed-device.ts'
import { CliError, fileError, usageError } from '../failure.ts'
import { hexDump } from '../hex-dump.ts'
import { bytesText, parseNumber, parseWidth, type Width } from '../numbers.ts'
import { RegionAccess } from '../region-access.ts'
import { action, type CommandSession } from '../session.ts'

const ABOUT = `
REGION is an index or a name, such as 0 or BAR0, 7 or CONFIG; vfioctl info DEVICE lists them.
The daemon resets a device when it opens and when it closes it, where the device can be reset: what
is read is what a reset leaves. Before BARs are used, memory and I/O decoding are switched on in
PCI_COMMAND.`

const readRegion = (
  session: CommandSession,
  name: string,
  regionName: string,
  offset: bigint,
  length: bigint,
  { width, out }: { width?: Width; out?: string },
): Promise<void> =>
  withDevice(session, name, async (borrowed) => {
    const region = await RegionAccess.to(borrowed, regionName)
    const data = await region.read(offset, length, width)
    if (out !== undefined) writeOut(out, data)
    const answer = {
      device: name,
      region: region.index,
      offset,
      length: data.length,
      ...(out === undefined ? { data: data.toString('hex') } : { file: out }),
    }
    session.output.answer(answer, () =>
      out === undefined
        ? hexDump(data, { offset, width })
        : `${bytesText(data.length)} of ${region.name} written to ${out}`,
    )
  })

const writeOut = (path: string, data: Buffer): void => {
  try {
    writeFileSync(path, data)
  } catch (error) {
    throw fileError('write', path, error)
  }
}

const readIn = (path: string): Buffer => {
  try {
    return readFileSync(path)
  } catch (error) {
    throw fileError('read', path, error)
  }
}

/** A value in the byte order of PCI registers. */
const littleEndian = (value: bigint, width: Width): Buffer => {
  if (value >> BigInt(8 * width) !== 0n)
    throw new CliError(`Cannot write ${hex(value)} in ${width} bytes: it is too large`, {
      note: 'give a larger --width',
    })
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes.subarray(0, width)
}

const DEFAULT_WIDTH: Width = 4

const writeRegion = (
  session: CommandSession,
  name: string,
  regionName: string,
  offset: bigint,
  value: bigint | undefined,
  options: { width?: Width; in?: string },
): Promise<void> => {
  const { width, in: path } = options
  if ((value === undefined) === (path === undefined))
    throw usageError('Cannot choose the bytes to write: give either VALUE or --in FILE')
  const data = path === undefined ? littleEndian(value ?? 0n, width ?? DEFAULT_WIDTH) : readIn(path)
  return withDevice(session, name, async (borrowed) => {
    const region = await RegionAccess.to(borrowed, regionName)
    await region.write(offset, data, width)
    const answer = { device: name, region: region.index, offset, length: data.length }
    session.output.answer(
      answer,
      () => `${bytesText(data.length)} written to ${region.name} at ${hex(offset)}`,
    )
  })
}

export const addRegionCommands = (program: Command): void => {
  const region = program.command('region').description('read and write the regions of a device')
  region
    .command('read')
    .description('show bytes of a region')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .argument('<region>', 'index or name')
    .argument('<offset>', 'where to start', parseNumber)
    .argument('<length>', 'how many bytes', parseNumber)
    .option('--width <bytes>', 'access by 1, 2, 4 or 8 bytes, and show such numbers', parseWidth)
    .option('--out <file>', 'write the bytes to a file instead')
    .addHelpText('after', ABOUT)
    .action(action(readRegion))
  region
    .command('write')
    .description('write a number or a file to a region')
    .argument('<device>', 'a PCI address or an mdev UUID')
    .argument('<region>', 'index or name')
    .argument('<offset>', 'where to start', parseNumber)
    .argument('[value]', 'a number, written little-endian', parseNumber)
    .option(
      '--width <bytes>',
      `access by 1, 2, 4 or 8 bytes (default of a value: ${DEFAULT_WIDTH})`,
      parseWidth,
    )
    .option('--in <file>', 'write the bytes of a file instead')
    .addHelpText('after', ABOUT)
    .action(action(writeRegion))
}
