/** `npm run bench -- sim`: what map, unmap and find cost on the simulator, by how many there are. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const CHILD = fileURLToPath(new URL('sim-mappings.mjs', import.meta.url))

const FULL = { counts: [1000, 65_535, 1_000_000], samples: 20_000, rounds: 9 }
const SMOKE = { counts: [10, 100, 1000], samples: 20, rounds: 1 }

/** One row for each backend and request: microseconds of CPU at each count, and their factor. */
export const simRows = async ({ smoke }) => {
  const { counts, samples, rounds } = smoke ? SMOKE : FULL
  const rows = []
  for (const backend of ['type1', 'iommufd']) {
    const measured = []
    for (const count of counts) {
      const args = [CHILD, backend, count, samples, rounds].map(String)
      const { stdout } = await promisify(execFile)(process.execPath, args)
      measured.push(JSON.parse(stdout))
    }
    for (const request of ['map', 'unmap', 'find']) {
      const us = measured.map((figures) => figures[request])
      const factor = Math.max(...us) / Math.min(...us)
      rows.push({ name: `${backend}, ${request}`, unit: 'us', counts, us, factor })
    }
  }
  return rows
}

/** A Markdown table of them. */
export const simTable = (rows) => {
  const [{ counts }] = rows
  const heads = counts.map((count) => `${count.toLocaleString('en')} mappings`)
  const line = (cells) => `| ${cells.join(' | ')} |`
  return [
    line(['request', ...heads, 'factor']),
    `|---|${'--:|'.repeat(counts.length + 1)}`,
    ...rows.map(({ name, us, factor }) =>
      line([name, ...us.map((value) => `${value.toFixed(1)} us`), factor.toFixed(1)]),
    ),
  ].join('\n')
}
