/** Files that decide who may do what: the configuration, the policy, certificates and keys. */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { ConfigError } from './config-error.ts'

const OTHERS_WRITE = 0o002

/** The text of a file; a ConfigError where it cannot be read, or where every user could write it. */
export function readTrusted(path: string): string {
  let fd: number | undefined
  try {
    fd = openSync(path, 'r')
    const { mode } = fstatSync(fd)
    if ((mode & OTHERS_WRITE) !== 0)
      throw new ConfigError(
        `Cannot trust ${path}: every user may write it (mode ${(mode & 0o777).toString(8)}); run chmod o-w ${path} and look at its content`,
      )
    return readFileSync(fd, 'utf8')
  } catch (error) {
    if (error instanceof ConfigError) throw error
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError(`Cannot read ${path}: ${code}`, code)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
