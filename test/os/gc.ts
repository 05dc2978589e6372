/** Garbage collection on demand, without the runner having to be started for it. */

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

/** Several rounds, with a turn of the event loop between: finalizers and weak references settle. */
export const collectGarbage = async (): Promise<void> => {
  for (let round = 0; round < 4; round += 1) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
}
