/**
 * Builds dist once before the tests: whoever has another identity, another process or another Node
 * runs the compiled daemon. Skipped when dist is newer than every source, so that a run after
 * `npm run build` builds nothing.
 */
import { execFileSync } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const filesIn = (directory: string): string[] =>
  readdirSync(join(ROOT, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))

const modified = (file: string): number =>
  statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY

const isBuilt = (): boolean => {
  const sources = [...filesIn('src'), ...filesIn('proto')].filter(
    (file) => !file.includes('/src/proto/'),
  )
  const outputs = sources
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.replace(`${ROOT}src/`, `${ROOT}dist/`).replace(/\.ts$/, '.js'))
  const newest = Math.max(...sources.map(modified))
  return outputs.every((file) => {
    const at = statSync(file, { throwIfNoEntry: false })?.mtimeMs
    return at !== undefined && at >= newest
  })
}

/** `npm test` has built by then, and fails when that fails; this is for vitest on its own. */
export const setup = (): void => {
  if (isBuilt()) return
  try {
    const script = join(ROOT, 'scripts/build.mjs')
    execFileSync(process.execPath, [script], { cwd: ROOT, stdio: 'inherit' })
  } catch {
    process.stderr.write('The build failed: tests that spawn the daemon run an old one or fail.\n')
  }
}
