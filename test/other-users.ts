/** Whether tests may start processes of other users, and why not: for the titles of what is skipped. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const NOBODY = 65534
const isRoot = process.getuid?.() === 0

/** Node and the checkout may lie in a folder that is root's alone. */
const othersCanRun = (): boolean => {
  const checkout = JSON.stringify(fileURLToPath(new URL('../package.json', import.meta.url)))
  const program = `require('node:fs').readFileSync(${checkout})`
  const options = { uid: NOBODY, gid: NOBODY, cwd: '/' }
  return spawnSync(process.execPath, ['-e', program], options).status === 0
}

/** Empty when they may. */
export const noOtherUsers = !isRoot
  ? ' (skipped: only root may be several users)'
  : othersCanRun()
    ? ''
    : ' (skipped: other users can reach neither this Node nor this checkout)'

export const canBeOthers = noOtherUsers === ''
