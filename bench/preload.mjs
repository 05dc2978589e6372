/**
 * Loaded before the daemon (node --import): puts the kernel of kernel.mjs between the simulator and
 * everything above it, and takes a choice of vfiod's back where one is named. The daemon is
 * dist/daemon/main.js in everything else.
 */
import { register } from 'node:module'
import { preloadOptions } from './preload-options.mjs'

const { sessionBytes, choice } = preloadOptions(import.meta.url)
register('./simulator-hook.mjs', import.meta.url, { data: { sessionBytes } })
if (choice !== '') (await import('./slower.mjs')).takeBack(choice)
