// The guest's kernel: built once from Debian's kernel source and the fragment beside this file,
// kept outside the checkout under a name that changes with either.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installedVersion } from './packages.mjs'

const source = 'linux-source-6.12'
const here = fileURLToPath(new URL('.', import.meta.url))

/** `$VFIOD_CACHE`, or the user's cache folder. */
export const cacheFolder =
  process.env.VFIOD_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'vfiod')

// Comments do not make another kernel.
function cacheKey(fragment) {
  const options = fragment.split('\n').filter((line) => line.startsWith('CONFIG_'))
  const hash = createHash('sha256').update([installedVersion(source), ...options].join('\n'))
  return hash.digest('hex').slice(0, 16)
}

/** Path of the kernel image; builds it, some five minutes on two processors, if need be. */
export function kernelImage() {
  const fragment = join(here, 'kernel.config')
  const folder = join(cacheFolder, `kernel-${cacheKey(readFileSync(fragment, 'utf8'))}`)
  const image = join(folder, 'bzImage')
  if (existsSync(image)) return image

  mkdirSync(folder, { recursive: true })
  console.error(`building the kernel ${source} ${installedVersion(source)}, once, into ${folder}`)
  // flock lets go when its holder dies, however it dies.
  const build = ['sh', join(here, 'build-kernel.sh'), `/usr/src/${source}.tar.xz`, fragment, image]
  execFileSync('flock', [join(folder, 'lock'), ...build], { stdio: ['ignore', 2, 2] })
  return image
}
