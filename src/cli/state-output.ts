/**
 * Where the state of a device is written to. A new file has its name once it is complete and on
 * disk: before, it has none, so that a vfioctl that is killed leaves nothing behind. A device node
 * or a pipe is written to as it is; only a regular file is ever replaced, and only by --force.
 */
import { createHash, type Hash, randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, lstat, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { linkFd } from '../os/libc.ts'
import { CliError, fileError } from './failure.ts'

interface Target {
  write(data: Buffer): Promise<void>
  /** After the last byte. */
  finish(): Promise<void>
  /** In place of `finish`. */
  abandon(): Promise<void>
}

export interface OutputOptions {
  /** `-` for standard output. */
  readonly path: string
  /** Whether an existing regular file is replaced. */
  readonly force: boolean
}

export const isStandardOutput = (path: string): boolean => path === '-' || path === '/dev/stdout'

export class StateOutput {
  readonly #path: string
  readonly #target: Target
  readonly #hash: Hash = createHash('sha256')
  bytes = 0

  private constructor(path: string, target: Target) {
    this.#path = path
    this.#target = target
  }

  static async open({ path, force }: OutputOptions): Promise<StateOutput> {
    return orFileError(path, async () => new StateOutput(path, await targetOf(path, force)))
  }

  /** Of the bytes written so far. */
  get sha256(): string {
    return this.#hash.copy().digest('hex')
  }

  async append(data: Buffer): Promise<void> {
    this.#hash.update(data)
    await orFileError(this.#path, () => this.#target.write(data))
    this.bytes += data.length
  }

  async keep(): Promise<void> {
    await orFileError(this.#path, () => this.#target.finish())
  }

  discard(): Promise<void> {
    return this.#target.abandon()
  }
}

const orFileError = async <Result>(path: string, work: () => Promise<Result>): Promise<Result> => {
  try {
    return await work()
  } catch (error) {
    throw error instanceof CliError ? error : fileError('write', path, error)
  }
}

/** Undefined where there is nothing of that name. */
const orAbsent = async <Result>(lookup: Promise<Result>): Promise<Result | undefined> => {
  try {
    return await lookup
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

const targetOf = async (path: string, force: boolean): Promise<Target> => {
  if (isStandardOutput(path)) return standardOutput()
  const existing = await orAbsent(stat(path))
  if (existing === undefined) {
    if ((await orAbsent(lstat(path))) !== undefined)
      throw new CliError(
        `Cannot write "${path}": it is a symbolic link to a file that does not exist; name that file`,
      )
    return NewFile.create(path, { replaces: false })
  }
  if (existing.isDirectory()) throw new CliError(`Cannot write "${path}": it is a directory`)
  if (!existing.isFile()) return existingNode(path)
  if (!force)
    throw new CliError(`Cannot write "${path}": it exists; name another file, or add --force`)
  // The file that a symbolic link leads to is replaced, not the link.
  return NewFile.create(await realpath(path), { replaces: true })
}

/** A device node, a pipe or a socket: opened as it is, neither created nor cut. */
const existingNode = async (path: string): Promise<Target> => {
  const handle = await open(path, constants.O_WRONLY)
  return {
    write: (data) => handle.writeFile(data),
    finish: async () => {
      await syncIfPossible(handle)
      await handle.close()
    },
    abandon: () => handle.close(),
  }
}

const standardOutput = (): Target => {
  if (process.stdout.isTTY)
    throw new CliError(
      'Cannot write the state of a device to a terminal; redirect standard output to a file or a pipe',
    )
  // A reader that has gone is a failure here, where elsewhere it only wants no more lines.
  process.stdout.removeAllListeners('error').on('error', () => {})
  return {
    write: (data) =>
      new Promise((resolve, reject) => {
        process.stdout.write(data, (error) => (error ? reject(error) : resolve()))
      }),
    finish: async () => {},
    abandon: async () => {},
  }
}

/** open(2): O_TMPFILE, which Node does not name. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
/** What open answers where the file system has no files without a name. */
const NO_TMPFILE = ['EOPNOTSUPP', 'ENOTSUP', 'EISDIR', 'EINVAL']
/** The state may hold memory and keys of a guest. */
const OWNER_ONLY = 0o600

class NewFile implements Target {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #replaces: boolean
  /** The name that it has for the time being, if it has one. */
  #name: string | undefined

  private constructor(options: {
    readonly path: string
    readonly handle: FileHandle
    readonly replaces: boolean
    readonly name?: string
  }) {
    this.#path = options.path
    this.#handle = options.handle
    this.#replaces = options.replaces
    this.#name = options.name
  }

  static async create(
    path: string,
    { replaces }: { readonly replaces: boolean },
  ): Promise<NewFile> {
    try {
      const handle = await open(dirname(path), constants.O_WRONLY | O_TMPFILE, OWNER_ONLY)
      return new NewFile({ path, handle, replaces })
    } catch (error) {
      if (!NO_TMPFILE.includes((error as NodeJS.ErrnoException).code ?? '')) throw error
      const name = temporaryNameFor(path)
      const handle = await open(name, 'wx', OWNER_ONLY)
      return new NewFile({ path, handle, replaces, name })
    }
  }

  write(data: Buffer): Promise<void> {
    return this.#handle.writeFile(data)
  }

  async finish(): Promise<void> {
    try {
      await this.#handle.sync()
      await (this.#replaces ? this.#takeName() : this.#addName())
    } catch (error) {
      await this.abandon()
      throw error
    }
    await this.#handle.close()
    const folder = await open(dirname(this.#path), 'r')
    await syncIfPossible(folder).finally(() => folder.close())
  }

  async abandon(): Promise<void> {
    await this.#handle.close()
    if (this.#name !== undefined) await rm(this.#name, { force: true })
  }

  /** Fails where the name was given to another file meanwhile. */
  async #addName(): Promise<void> {
    if (this.#name === undefined) return this.#link(this.#path)
    await link(this.#name, this.#path)
    await rm(this.#name)
  }

  async #takeName(): Promise<void> {
    if (this.#name === undefined) {
      const name = temporaryNameFor(this.#path)
      await this.#link(name)
      this.#name = name
    }
    await rename(this.#name, this.#path)
  }

  async #link(path: string): Promise<void> {
    const answer = await linkFd(this.#handle.fd, path)
    if (answer < 0) throw Object.assign(new Error('linkat'), { errno: answer })
  }
}

const temporaryNameFor = (path: string): string =>
  join(dirname(path), `.vfioctl-${randomBytes(8).toString('hex')}`)

/** A pipe and some file systems have nothing to sync. */
const syncIfPossible = async (handle: FileHandle): Promise<void> => {
  try {
    await handle.sync()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EINVAL' && code !== 'EROFS' && code !== 'ENOTSUP') throw error
  }
}
