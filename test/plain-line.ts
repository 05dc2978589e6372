// A vitest reporter that ends a run with one plain line, `N passed, N failed`, for whoever reads
// runs with a script. A file that does not load and an error outside of any test fail a run as
// well, so each counts as one failure: the line never says 0 failed of a run that failed.

import type { Reporter, SerializedError, TestModule } from 'vitest/node'

// biome-ignore lint/style/noDefaultExport: vitest takes a reporter that is named by path from there.
export default class PlainLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], strays: readonly SerializedError[]): void {
    let passed = 0
    let failed = strays.length
    let skipped = 0
    for (const module of modules) {
      let failedHere = 0
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        if (state === 'passed') passed += 1
        else if (state === 'failed') failedHere += 1
        else skipped += 1
      }
      failed += failedHere === 0 && !module.ok() ? 1 : failedHere
    }
    const rest = skipped === 0 ? '' : `, ${skipped} skipped`
    process.stdout.write(`${passed} passed, ${failed} failed${rest}\n`)
  }
}
