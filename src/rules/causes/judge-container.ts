/** Why /dev/vfio/vfio cannot be opened, judged by what the kernel has. */

import type { CauseId } from './catalog.ts'
import { ruledOut, type Verdict } from './cause.ts'

/** Undefined is what cannot be told. */
export interface ContainerFacts {
  /** Whether the kernel offers the node: "vfio" in /sys/class/misc. */
  readonly isOffered: boolean | undefined
  /** Whether the module vfio is there, loaded or built in. */
  readonly hasVfio: boolean | undefined
}

export function judgeContainer({ isOffered, hasVfio }: ContainerFacts): Verdict<CauseId>[] {
  if (isOffered === true) {
    const found = 'the kernel offers /dev/vfio/vfio, and the daemon does not see it in its /dev'
    return [
      { cause: 'container-node-missing', isSo: true, found },
      ...ruledOut<CauseId>('vfio-not-loaded', 'no-container-interface'),
    ]
  }
  const verdicts: Verdict<CauseId>[] = []
  if (isOffered === false) verdicts.push(...ruledOut<CauseId>('container-node-missing'))
  if (hasVfio === true) verdicts.push(...ruledOut<CauseId>('vfio-not-loaded'))
  if (hasVfio === false && isOffered === false) {
    const found = 'the module vfio is not loaded'
    verdicts.push({ cause: 'vfio-not-loaded', isSo: true, found })
  }
  return verdicts
}
