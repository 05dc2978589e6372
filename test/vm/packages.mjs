// The Debian packages the test machine is made of (packages.txt): asked for, and installed where
// that is possible. A machine that cannot be had is a failure, never a skipped test.

import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const wanted = readFileSync(new URL('packages.txt', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))

/** The version of an installed package, or null. */
export function installedVersion(name) {
  const asked = spawnSync('dpkg-query', ['-s', name], { encoding: 'utf8' })
  if (asked.error) throw new Error('Cannot ask for Debian packages: dpkg-query is missing')
  if (!/^Status: .* installed$/m.test(asked.stdout)) return null
  return /^Version: (.*)$/m.exec(asked.stdout)[1]
}

/** After it, every package is installed. */
export function ensurePackages() {
  const missing = wanted.filter((name) => installedVersion(name) === null)
  if (missing.length === 0) return
  const install = `apt-get install -y --no-install-recommends ${missing.join(' ')}`
  if (process.getuid() !== 0) {
    throw new Error(`Cannot have the test machine: packages are missing. As root: ${install}`)
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const run = (command) => execFileSync('sh', ['-c', command], { env, stdio: ['ignore', 2, 2] })
  run('apt-get update -qq')
  run(`${install} -qq`)
}
