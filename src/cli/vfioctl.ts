#!/usr/bin/env node
/** vfioctl, the command line client of vfiod. See docs/vfioctl.md. */
import { CommanderError } from 'commander'
import { tuneCollector } from '../os/limits.ts'
import { placeOf } from './connection.ts'
import { EXIT_USAGE, failureJson, failureOf, failureText } from './failure.ts'
import { buildProgram } from './program.ts'
import type { GlobalOptions } from './session.ts'

// What others see as the owner of what this process takes.
process.title = 'vfioctl'

// For the state of devices, which it saves and loads.
tuneCollector()

// `vfioctl groups | head -1` does not fail.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(0)
})

const program = buildProgram()

/** Commander has shown help: because it was asked to, or because there was nothing to do. */
const exitCodeAfterHelp = (error: unknown): number | undefined => {
  if (!(error instanceof CommanderError)) return undefined
  if (error.exitCode === 0) return 0
  return error.code === 'commander.help' ? EXIT_USAGE : undefined
}

const exitCodeAfter = (error: unknown): number => {
  const helped = exitCodeAfterHelp(error)
  if (helped !== undefined) return helped
  const options = program.opts<GlobalOptions>()
  const failure = failureOf(error, placeOf(options))
  // A mistake of vfioctl: the stack is what helps.
  if (failure === undefined) throw error
  const isJson = options.json === true || process.argv.includes('--json')
  console.error(isJson ? failureJson(failure) : failureText(failure))
  return failure.exitCode
}

try {
  await program.parseAsync()
} catch (error) {
  process.exitCode = exitCodeAfter(error)
}
