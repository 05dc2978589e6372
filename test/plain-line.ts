// A vitest reporter that ends a run with one plain line, `N passed, N failed`, for whoever reads
// runs with a script. A file that does not load and an error outside of any test fail a run as
// well, so each counts as one failure: the line never says 0 failed of a run that failed.

import type { Reporter, SerializedError, TestModule } from 'vitest/node'

export interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

/** How the tests of one file ended. */
export const countsOf = (module: TestModule): Counts => {
  let passed = 0
  let failed = 0
  let skipped = 0
  for (const test of module.children.allTests()) {
    const { state } = test.result()
    if (state === 'passed') passed += 1
    else if (state === 'failed') failed += 1
    else skipped += 1
  }
  return { passed, failed: failed === 0 && !module.ok() ? 1 : failed, skipped }
}

/** `12 passed, 0 failed, 3 skipped` */
export const lineOf = ({ passed, failed, skipped }: Counts): string =>
  `${passed} passed, ${failed} failed${skipped === 0 ? '' : `, ${skipped} skipped`}`

// biome-ignore lint/style/noDefaultExport: vitest takes a reporter that is named by path from there.
export default class PlainLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], strays: readonly SerializedError[]): void {
    const sum = modules.map(countsOf).reduce(
      (all, one) => ({
        passed: all.passed + one.passed,
        failed: all.failed + one.failed,
        skipped: all.skipped + one.skipped,
      }),
      { passed: 0, failed: strays.length, skipped: 0 },
    )
    process.stdout.write(`${lineOf(sum)}\n`)
  }
}
