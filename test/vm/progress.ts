// A vitest reporter for the test machine: it says after each test that the machine is alive, and
// after each file how its tests ended, so that a machine which is cut has proved what it had proved.
// tally.mjs takes both kinds of lines out of the output.

import type { Reporter, TestModule } from 'vitest/node'
import { countsOf, lineOf } from '../plain-line.ts'

// biome-ignore lint/style/noDefaultExport: vitest takes a reporter that is named by path from there.
export default class Progress implements Reporter {
  onTestCaseResult(): void {
    process.stdout.write('progress: a test ended\n')
  }

  onTestModuleEnd(module: TestModule): void {
    process.stdout.write(`progress: ${lineOf(countsOf(module))}\n`)
  }
}
