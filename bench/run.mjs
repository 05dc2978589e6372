/**
 * The bench: vfiod beside peers that are measured in the same run, by the same client, in turns.
 * docs/benchmarks.md says what each row means. Reaches nothing but Unix sockets in a folder of its
 * own, and ends LIMIT_MS after everything is there, whatever happens.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tuneCollector } from '../dist/os/limits.js'
import { busyRows } from './busy.mjs'
import { MACHINE_FILE } from './machine.mjs'
import { mappingRows } from './mapping.mjs'
import { readOptions, USAGE } from './options.mjs'
import { buildPeer } from './peer.mjs'
import { preloadOf } from './preload-options.mjs'
import { killServers, startServer, stopServers } from './processes.mjs'
import { rawPing } from './raw-client.mjs'
import { defaultFile, machineFacts, table, writeReport } from './report.mjs'
import { sessionRows } from './sessions.mjs'
import { simRows, simTable } from './sim.mjs'
import { PeerTarget, PlainReader, VfiodTarget } from './target.mjs'
import { unaryRows } from './unary.mjs'

const LIMIT_MS = 290_000

const here = (name) => fileURLToPath(new URL(name, import.meta.url))
const DAEMON = '../dist/daemon/main.js'
const ONE_PROCESS = 'one-process.mjs'

const VFIOD = 'vfiod'
const PEER = 'C++ gRPC'
const ONE = 'one process'

const start = async (folder, { scale, withPeer }) => {
  const built = withPeer ? buildPeer() : undefined
  const bytes = String(scale.sessionBytes)
  /** Where it listens, and its pid. */
  const run = async (name, command, args) => {
    const socket = join(folder, name, 'vfiod.sock')
    mkdirSync(dirname(socket))
    const log = join(folder, `${name}.log`)
    return { socket, pid: await startServer(command, args(socket), { log }) }
  }
  const node = (name, file, args) =>
    run(name, process.execPath, (socket) => [here(file), ...args(socket)])
  /** The daemon as users start it, unless said otherwise; `preload` changes what lies below it. */
  const daemon = (name, preload = [], program = DAEMON) =>
    run(name, process.execPath, (socket) => [
      ...preload,
      here(program),
      '--sim',
      MACHINE_FILE,
      '--socket',
      socket,
    ])
  const slow = (name, choice = '', program = DAEMON) =>
    daemon(name, preloadOf({ sessionBytes: bytes, choice }), program)
  const prepared = async (server) => new VfiodTarget(await server).prepare()

  const slowServer = await slow('slow')
  const targets = {
    daemon: await prepared(daemon('daemon')),
    slow: await prepared(slowServer),
    byLoader: await prepared(slow('by-loader', 'proto-loader')),
    whole: await prepared(slow('one-process', '', ONE_PROCESS)),
    narrow: await prepared(slow('narrow', '64k-window', ONE_PROCESS)),
    plainReader: new PlainReader(slowServer),
    raw: await node('raw', 'raw-server.mjs', (socket) => [socket, bytes]),
  }
  if (built === undefined) return { targets }
  const peer = new PeerTarget(await run('peer', built.path, (socket) => [socket, bytes]))
  return { targets: { ...targets, peer }, peerVersion: built.version }
}

/** The contenders of a row: vfiod, the C++ peer if there is one, and others. */
const beside = (vfiod, peer, others = {}) => ({
  [VFIOD]: vfiod,
  ...(peer === undefined ? {} : { [PEER]: peer }),
  ...others,
})

const measure = async (targets, scale) => {
  const { daemon, slow, whole, byLoader, narrow, plainReader, peer, raw } = targets
  const say = (what) =>
    console.error(`${(performance.now() / 1000).toFixed(0).padStart(4)} s: measuring ${what} ...`)
  const stateOf = (target) => target && (() => target.state())
  const { ping, close } = await rawPing(raw.socket)
  const bigMapBytes = Math.min(scale.bigMapBytes, 2 ** Math.floor(Math.log2(freemem() / 3)))
  try {
    say('unary calls')
    const unary = await unaryRows(
      beside(stateOf(daemon), stateOf(peer), {
        [ONE]: stateOf(whole),
        'raw socket': ping,
      }),
      scale,
    )
    say('map and unmap')
    const mapping = await mappingRows(beside(daemon, peer, { [ONE]: whole }), scale)
    say('sessions')
    const readers = beside(slow, peer, {
      [ONE]: whole,
      "proto-loader's serializer": byLoader,
      'a client with 64 KiB': plainReader,
    })
    const writers = beside(slow, peer, { [ONE]: whole, 'one process with 64 KiB': narrow })
    const sessions = await sessionRows({ readers, writers, raw }, scale)
    say('unary calls during a map')
    const busy = await busyRows(beside(slow, peer, { [ONE]: whole }), { ...scale, bigMapBytes })
    return [...unary, ...mapping, ...sessions, ...busy]
  } finally {
    close()
    for (const target of [daemon, slow, whole, byLoader, narrow, plainReader, peer]) target?.close()
  }
}

/** Nothing but the simulator, in processes of its own. */
const measureSim = async ({ smoke, out }) => {
  const machine = machineFacts()
  const rows = await simRows({ smoke })
  const file = out ?? defaultFile(machine)
  writeReport(file, { machine, smoke, rows })
  console.log(`\n${simTable(rows)}\n\nWritten to ${file}`)
}

const main = async () => {
  // As vfioctl does. The client is the same for every contender, and should not be what is measured.
  tuneCollector()
  const options = readOptions(process.argv.slice(2))
  if (options.help) return console.log(USAGE)
  if (options.isSim) return await measureSim(options)
  const folder = mkdtempSync(join(tmpdir(), 'vfiod-bench-'))
  const giveUp = (why) => {
    console.error(`the bench gives up: ${why}`)
    killServers()
    rmSync(folder, { recursive: true, force: true })
    process.exit(1)
  }
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => giveUp(signal))
  try {
    const { targets, peerVersion = null } = await start(folder, options)
    const late = () => giveUp(`it took longer than ${LIMIT_MS / 1000} s`)
    setTimeout(late, LIMIT_MS).unref()
    const machine = machineFacts()
    const rows = await measure(targets, options.scale)
    const { smoke, out = defaultFile(machine) } = options
    writeReport(out, { machine: { ...machine, peer: peerVersion }, smoke, rows })
    const { node, cpus, cpu, kernel } = machine
    console.log(`\n${table(rows)}\n`)
    console.log(`Node ${node}, ${cpus} x ${cpu}, Linux ${kernel}. A ratio above 1 means that vfiod`)
    console.log('does better. The map of several GiB sleeps in reads of /dev/zero into every page,')
    console.log(`since the simulator alone would answer at once. Written to ${out}`)
  } finally {
    await stopServers()
    rmSync(folder, { recursive: true, force: true })
  }
}

await main()
