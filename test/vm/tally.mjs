// Adds up the closing lines of several vitest runs (test/plain-line.ts), so that one closes them all.

const closing = /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/

export function createTally() {
  let passed = 0
  let failed = 0
  let skipped = 0
  return {
    /** Takes a line of output; passes on what is not a closing line. */
    onLine: (line) => {
      const counts = closing.exec(line)
      if (counts === null) {
        process.stdout.write(`${line}\n`)
        return
      }
      passed += Number(counts[1])
      failed += Number(counts[2])
      skipped += Number(counts[3] ?? 0)
    },
    addFailure: () => {
      failed += 1
    },
    line: () => `${passed} passed, ${failed} failed${skipped === 0 ? '' : `, ${skipped} skipped`}`,
  }
}
