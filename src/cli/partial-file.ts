/** A file that appears under its name once it is complete: until then it is NAME.part. */
import { createHash, type Hash } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { fileError } from './failure.ts'

export class PartialFile {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #hash: Hash = createHash('sha256')
  bytes = 0

  private constructor(path: string, handle: FileHandle) {
    this.#path = path
    this.#handle = handle
  }

  static async create(path: string): Promise<PartialFile> {
    return orFileError(path, async () => new PartialFile(path, await open(`${path}.part`, 'w')))
  }

  /** Of what was written so far. */
  get sha256(): string {
    return this.#hash.copy().digest('hex')
  }

  async append(data: Buffer): Promise<void> {
    this.#hash.update(data)
    await orFileError(this.#path, () => this.#handle.writeFile(data))
    this.bytes += data.length
  }

  async keep(): Promise<void> {
    await orFileError(this.#path, async () => {
      await this.#handle.close()
      await rename(`${this.#path}.part`, this.#path)
    })
  }

  async discard(): Promise<void> {
    await this.#handle.close()
    await rm(`${this.#path}.part`, { force: true })
  }
}

const orFileError = async <Result>(path: string, work: () => Promise<Result>): Promise<Result> => {
  try {
    return await work()
  } catch (error) {
    throw fileError('write', path, error)
  }
}
