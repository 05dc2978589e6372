// Runs something on a real kernel with VFIO: by default the kernel test suite.
//
//   node test/vm/run.mjs [FILTER...]        the suite, or the files that match
//   node test/vm/run.mjs -- CMD ARG...      any command; the guest sees the host's files
//
//   --node PATH       the Node binary of the guest (default: the one running this)
//   --iommu KIND      intel (default), amd or none; iommufd's mock domain wants none
//   --append WORDS    more words for the kernel's command line
//   --timeout SECONDS after which the guest is killed and the run fails (default 1200)

import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { kernelImage } from './kernel.mjs'
import { boot } from './machine.mjs'
import { ensurePackages } from './packages.mjs'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
const quote = (word) => `'${word.replaceAll("'", "'\\''")}'`

function parse(argv) {
  const split = argv.indexOf('--')
  const { values, positionals } = parseArgs({
    args: split < 0 ? argv : argv.slice(0, split),
    allowPositionals: true,
    options: {
      node: { type: 'string', default: process.execPath },
      iommu: { type: 'string', default: 'intel' },
      append: { type: 'string', default: '' },
      timeout: { type: 'string', default: '1200' },
    },
  })
  if (!['intel', 'amd', 'none'].includes(values.iommu)) {
    throw new Error(`Cannot use the IOMMU ${values.iommu}: intel, amd or none`)
  }
  const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest.kernel.config.ts']
  const suite = [resolve(values.node), ...vitest, ...positionals]
  return { ...values, words: split < 0 ? suite : argv.slice(split + 1) }
}

// The guest starts with an empty environment: only what is named here reaches the job.
function jobScript({ node, iommu, words }) {
  const inherited = Object.keys(process.env).filter((name) => /^(CI|VFIOD_.*)$/.test(name))
  const env = {
    ...Object.fromEntries(inherited.map((name) => [name, process.env[name]])),
    // The job's stdout is ours by way of a pipe: whether it may be coloured is known only here.
    ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : { NO_COLOR: '1' }),
    HOME: '/root',
    PATH: `${dirname(node)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    VFIOD_IOMMU: iommu,
  }
  return [
    ...Object.entries(env).map(([name, value]) => `export ${name}=${quote(value)}`),
    `cd ${quote(checkout)}`,
    `exec ${words.map(quote).join(' ')}`,
    '',
  ].join('\n')
}

async function main() {
  const wanted = parse(process.argv.slice(2))
  const node = resolve(wanted.node)
  ensurePackages()
  const neededInTmp = [checkout, node].some((path) => path.startsWith('/tmp/'))
  return boot({
    kernel: kernelImage(),
    command: jobScript({ ...wanted, node }),
    environment: `HIDE_TMP=${neededInTmp ? 'no' : 'yes'}\n`,
    iommu: wanted.iommu,
    append: wanted.append,
    timeoutMs: Number(wanted.timeout) * 1000,
  })
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(`test machine: ${error.message}`)
  process.exitCode = 1
}
