/** What one open of /dev/iommu holds: objects, how pinned pages are charged, the compat ioas. */

import type { OpenFile } from '../file/open-file.ts'
import type { IommuGroup } from '../iommu/iommu-group.ts'
import type { MachineSpec } from '../spec/machine-spec.ts'
import type { AttachedGroup } from './attached-group.ts'
import { Ioas } from './ioas.ts'
import { ObjectTable } from './objects.ts'
import type { AccountMode } from './pages.ts'

/** IOMMU_OPTION_RLIMIT_MODE: who is charged for the pages of a process without CAP_IPC_LOCK. */
export type RlimitMode = Exclude<AccountMode, 'none'>

/** The parameters of the module iommufd, which root may change at any time. */
export interface IommufdParameters {
  allowsUnsafeInterrupts: boolean
}

/** What an iommufd needs of the machine. */
export interface IommufdMachine {
  readonly spec: MachineSpec
  readonly iommufd: IommufdParameters
}

export class IommufdContext {
  readonly machine: MachineSpec
  readonly parameters: IommufdParameters
  /** Bound devices and fault queues hold it, so that the objects outlive the fd. */
  readonly file: OpenFile
  readonly objects = new ObjectTable()
  /** The groups of the bound devices. */
  readonly groups = new Map<IommuGroup, AttachedGroup>()
  /** Every ioas of `objects`. */
  readonly ioases = new Set<Ioas>()
  accountMode: RlimitMode
  /** What the requests of a container act on. */
  vfioIoas: Ioas | undefined

  constructor(
    { spec, iommufd }: IommufdMachine,
    { file, accountMode }: { readonly file: OpenFile; readonly accountMode: RlimitMode },
  ) {
    this.machine = spec
    this.parameters = iommufd
    this.file = file
    this.accountMode = accountMode
  }

  /** A new ioas, which is not in `objects` yet. */
  newIoas(): Ioas {
    const ioas = new Ioas((gone) => {
      this.ioases.delete(gone)
      if (this.vfioIoas === gone) this.vfioIoas = undefined
    })
    this.ioases.add(ioas)
    return ioas
  }

  ioas(id: number): Ioas | undefined {
    return this.objects.find(id, Ioas)
  }

  /** A group is made a container of the iommufd: it has an ioas from then on. */
  ensureVfioIoas(): void {
    this.vfioIoas ??= this.objects.insert(this.newIoas())
  }
}
