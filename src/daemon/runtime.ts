/**
 * The Node that the daemon runs on. Native code of Node is part of the process that owns the devices,
 * so it has to be one that is still mended: 24 and newer. One is installed with the daemon.
 */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { errnoName } from '../base/errno.ts'
import { become } from '../os/exec.ts'

/** The oldest major version of Node that is supported. */
export const OLDEST_NODE = 24

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url))

/** `v24.21.0` -> whether the daemon is supported on it. */
export const isSupported = (version: string): boolean =>
  Number(/^v(\d+)\./.exec(version)?.[1]) >= OLDEST_NODE

/** The Node of the packages; undefined where they were installed without it. */
export const packagedNode = (): string | undefined => {
  try {
    const name = `node-linux-${process.arch}/package.json`
    const path = createRequire(import.meta.url).resolve(name)
    const node = fileURLToPath(new URL('./bin/node', `file://${path}`))
    return existsSync(node) ? node : undefined
  } catch {
    return undefined
  }
}

/**
 * Goes over to the Node of the packages where this one is not supported; answers why the daemon cannot
 * run where there is none. Stays where VFIOD_NODE is set: the operator has chosen.
 */
export const settleRuntime = (argv: readonly string[]): string | undefined => {
  if (isSupported(process.version) || process.env.VFIOD_NODE) return undefined
  const node = packagedNode()
  // Returns only when it fails.
  const answer = node && become(node, [...process.execArgv, MAIN, ...argv.slice(2)])
  const found = answer ? `${node}: ${errnoName(-answer)}` : 'its own Node is not installed'
  return (
    `Cannot run on Node ${process.version.slice(1)}: vfiod supports ${OLDEST_NODE} and newer, and ` +
    `${found}; install the optional packages too (npm ci), or set VFIOD_NODE`
  )
}
