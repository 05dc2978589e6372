/**
 * The data_fd of a session: one ordered stream, read-only while a device saves and write-only
 * while it resumes. Once the session ends it is an orphan and answers -ENODEV for good.
 */

import { ERRNO } from '../../../base/errno.ts'
import { OpenFile } from '../file/open-file.ts'

export abstract class DataFile extends OpenFile {
  isOrphan = false

  override pread(): number {
    return -ERRNO.ESPIPE
  }

  override pwrite(): number {
    return -ERRNO.ESPIPE
  }

  override read(_into: Uint8Array): number {
    return -ERRNO.EBADF
  }

  override write(_from: Uint8Array): number {
    return -ERRNO.EBADF
  }

  protected override release(): void {}
}
