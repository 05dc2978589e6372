// Runs something on a real kernel with VFIO: by default the kernel test suite.
//
//   node test/vm/run.mjs [FILTER...]        the suite, or its files whose path has a FILTER in it
//   node test/vm/run.mjs -- CMD ARG...      any command; the guest sees the host's files
//
//   --node PATH        the Node binary of the guest (default: the one running this)
//   --silence SECONDS  a guest that says nothing for so long is killed, and the run fails; what its
//                      files proved until then counts (default 600; a test has 300 at most)
//   --iommu KIND       for CMD: intel (default), amd or none; iommufd's mock domain wants none
//   --vfio-container KIND  for CMD: who stands behind /dev/vfio/vfio: type1 (default), or iommufd
//   --devices NAMES    for CMD: devices that not every machine has, by commas: sriov
//   --init KIND        for CMD: job (default), or systemd to run it under systemd as PID 1
//   --processors N   how many processors the machine has (default 2); QEMU 7.2 may send one of
//                    two to a wrong device while the other changes what memory is where
//   --append WORDS     more words for the kernel's command line

import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { kernelImage } from './kernel.mjs'
import { boot } from './machine.mjs'
import { ensurePackages } from './packages.mjs'
import { suites } from './suites.mjs'
import { createTally } from './tally.mjs'

const checkout = fileURLToPath(new URL('../..', import.meta.url))
const quote = (word) => `'${word.replaceAll("'", "'\\''")}'`

function parse(argv) {
  const split = argv.indexOf('--')
  const { values, positionals } = parseArgs({
    args: split < 0 ? argv : argv.slice(0, split),
    allowPositionals: true,
    options: {
      node: { type: 'string', default: process.execPath },
      silence: { type: 'string', default: '600' },
      iommu: { type: 'string', default: 'intel' },
      init: { type: 'string', default: 'job' },
      devices: { type: 'string', default: '' },
      'vfio-container': { type: 'string', default: 'type1' },
      append: { type: 'string', default: '' },
      processors: { type: 'string', default: '2' },
    },
  })
  const command = split < 0 ? null : argv.slice(split + 1)
  const { 'vfio-container': vfioContainer, devices, ...wanted } = values
  return {
    ...wanted,
    vfioContainer,
    devices: devices.split(',').filter((name) => name !== ''),
    node: resolve(wanted.node),
    filters: positionals,
    command,
  }
}

// The guest starts with an empty environment: only what is named here reaches the job.
function jobScript({ node, iommu, init, vfioContainer }, words) {
  const inherited = Object.keys(process.env).filter((name) => /^(CI|VFIOD_.*)$/.test(name))
  const env = {
    ...Object.fromEntries(inherited.map((name) => [name, process.env[name]])),
    // The job's stdout is ours by way of a pipe: whether it may be coloured is known only here.
    ...(process.stdout.isTTY ? { FORCE_COLOR: '1' } : { NO_COLOR: '1' }),
    HOME: '/root',
    PATH: `${dirname(node)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    VFIOD_IOMMU: iommu,
    VFIOD_INIT: init,
    VFIOD_VFIO_CONTAINER: vfioContainer,
  }
  return [
    ...Object.entries(env).map(([name, value]) => `export ${name}=${quote(value)}`),
    `cd ${quote(checkout)}`,
    `exec ${words.map(quote).join(' ')}`,
    '',
  ].join('\n')
}

function run(kernel, wanted, words, onLine) {
  const neededInTmp = [checkout, wanted.node].some((path) => path.startsWith('/tmp/'))
  return boot({
    kernel,
    command: jobScript(wanted, words),
    environment: [
      `INIT=${wanted.init}`,
      `HIDE_TMP=${neededInTmp ? 'no' : 'yes'}`,
      `VFIO_CONTAINER=${wanted.vfioContainer}`,
      '',
    ].join('\n'),
    iommu: wanted.iommu,
    append: wanted.append,
    processors: wanted.processors,
    devices: wanted.devices,
    silenceMs: Number(wanted.silence) * 1000,
    onLine,
  })
}

// One boot per machine, one line at the end for all of them.
async function runSuites(kernel, wanted) {
  const found = suites(checkout, wanted.filters)
  if (found.length === 0) throw new Error('Cannot find a test file that matches')
  const tally = createTally()
  const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'vitest.kernel.config.ts']
  let worst = 0
  for (const { files, ...machine } of found) {
    process.stdout.write(`\nmachine: ${machine.name}\n`)
    try {
      const words = [wanted.node, ...vitest, ...files]
      worst = Math.max(worst, await run(kernel, { ...wanted, ...machine }, words, tally.onLine))
    } catch (error) {
      // Whoever interrupts us does not want the next machine.
      if (String(error.cause).startsWith('SIG')) throw error
      process.stdout.write(`test machine: ${error.message}\n`)
      tally.addCut()
      worst = 1
    }
  }
  process.stdout.write(`${tally.line()}\n`)
  return worst
}

async function main() {
  const wanted = parse(process.argv.slice(2))
  ensurePackages()
  const kernel = kernelImage()
  return wanted.command ? run(kernel, wanted, wanted.command) : runSuites(kernel, wanted)
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(`test machine: ${error.message}`)
  process.exitCode = 1
}
