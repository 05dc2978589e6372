/** /proc: the processes of the machine, which files of it each has open, and its release. */

import type { OpenFile } from '../file/open-file.ts'
import type { Process } from '../file/process.ts'
import { attribute, type Directory, directory, openFileLink } from '../file/vfs.ts'
import type { Machine } from '../machine/machine.ts'

export const proc = ({ processes, spec }: Machine): Directory =>
  directory(() => ({
    ...Object.fromEntries([...processes].map((process) => [process.pid, () => one(process)])),
    sys: () =>
      directory(() => ({
        kernel: () =>
          directory(() => ({ osrelease: () => attribute(() => `${spec.kernelVersion}\n`) })),
      })),
  }))

const one = ({ command, files }: Process): Directory =>
  directory(() => ({
    comm: () => attribute(() => `${command}\n`),
    fd: () =>
      directory(() =>
        Object.fromEntries([...files].map(([fd, file]) => [fd, () => openFileLink(nameOf(file))])),
      ),
  }))

/** A file without a path is one of a device, of a migration, or an object of an iommufd. */
const nameOf = ({ path, deviceName }: OpenFile): string =>
  path ?? (deviceName === undefined ? 'anon_inode:[iommufd]' : 'anon_inode:[vfio-device]')
