/** /proc: the processes of the machine, which files of it each has open, and what it says of the host. */

import type { OpenFile } from '../file/open-file.ts'
import type { Process } from '../file/process.ts'
import { attribute, type Directory, directory, openFileLink } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'
import { hostFiles, processOne } from './host-proc.ts'

export const proc = (machine: Machine): Directory =>
  directory(() => ({
    1: () => directory(() => processOne(machine)),
    ...Object.fromEntries(
      [...machine.processes].map((process) => [process.pid, () => one(machine, process)]),
    ),
    ...hostFiles(machine),
    sys: () =>
      directory(() => ({
        kernel: () =>
          directory(() => ({
            osrelease: () => attribute(() => `${machine.spec.kernelVersion}\n`),
          })),
      })),
  }))

/** In a container the daemon itself may be process 1. */
const one = (machine: Machine, { pid, command, files }: Process): Directory =>
  directory(() => ({
    ...(pid === 1 ? processOne(machine) : {}),
    comm: () => attribute(() => `${command}\n`),
    fd: () =>
      directory(() =>
        Object.fromEntries([...files].map(([fd, file]) => [fd, () => openFileLink(nameOf(file))])),
      ),
  }))

/** A file without a path is one of a device, of a migration, or an object of an iommufd. */
const nameOf = ({ path, deviceName }: OpenFile): string =>
  path ?? (deviceName === undefined ? 'anon_inode:[iommufd]' : 'anon_inode:[vfio-device]')
