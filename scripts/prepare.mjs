/**
 * Makes a fresh clone ready to build: installs the locked packages when they are missing or older
 * than the lock file. Runs on Node alone.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`vfiod needs Node 20.19 or newer; this is ${process.version}`)
  process.exit(1)
}

const installed = `${root}node_modules/.package-lock.json`
const stale =
  !existsSync(installed) ||
  statSync(installed).mtimeMs < statSync(`${root}package-lock.json`).mtimeMs
if (stale) {
  console.log('Installing the locked packages (npm ci) ...')
  execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: 'inherit',
  })
}
