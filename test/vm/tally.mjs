// Adds up the closing lines of several vitest runs (test/plain-line.ts), so that one closes them all.
// A run that was cut has no closing line: of it count the files that ended (progress.ts).

const counts = '(\\d+) passed, (\\d+) failed(?:, (\\d+) skipped)?$'
const closing = new RegExp(`^${counts}`)
const fileEnd = new RegExp(`^progress: ${counts}`)

const none = () => ({ passed: 0, failed: 0, skipped: 0 })

const add = (to, [, passed, failed, skipped = 0]) => {
  to.passed += Number(passed)
  to.failed += Number(failed)
  to.skipped += Number(skipped)
}

export function createTally(write = (text) => process.stdout.write(text)) {
  const total = none()
  // Of the files that ended since the last closing line.
  let ended = none()
  return {
    /** Takes a line of output; passes on what is meant for people. */
    onLine: (line) => {
      const run = closing.exec(line)
      const file = fileEnd.exec(line)
      if (run !== null) {
        add(total, run)
        ended = none()
      } else if (file !== null) add(ended, file)
      else if (!line.startsWith('progress: ')) write(`${line}\n`)
    },
    /** The machine ended without a closing line. */
    addCut: () => {
      for (const key of Object.keys(total)) total[key] += ended[key]
      total.failed += 1
      ended = none()
    },
    line: () => {
      const { passed, failed, skipped } = total
      return `${passed} passed, ${failed} failed${skipped === 0 ? '' : `, ${skipped} skipped`}`
    },
  }
}
