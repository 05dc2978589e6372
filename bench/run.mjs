/**
 * The bench: vfiod beside peers that are measured in the same run, by the same client, in turns.
 * docs/benchmarks.md says what each row means. Reaches nothing but Unix sockets in a folder of its
 * own, and ends LIMIT_MS after everything is there, whatever happens.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { tuneCollector } from '../dist/os/limits.js'
import { busyRows } from './busy.mjs'
import { MACHINE_FILE } from './machine.mjs'
import { mappingRows } from './mapping.mjs'
import { readOptions, USAGE } from './options.mjs'
import { buildPeer } from './peer.mjs'
import { killServers, startServer, stopServers } from './processes.mjs'
import { rawPing } from './raw-client.mjs'
import { defaultFile, machineFacts, table, writeReport } from './report.mjs'
import { sessionRows } from './sessions.mjs'
import { PeerTarget, PlainReader, VfiodTarget } from './target.mjs'
import { unaryRows } from './unary.mjs'

const LIMIT_MS = 230_000

const here = (name) => fileURLToPath(new URL(name, import.meta.url))
const DAEMON = here('../dist/daemon/main.js')

const VFIOD = 'vfiod'
const PEER = 'C++ gRPC'

const start = async (folder, { scale, withPeer }) => {
  const built = withPeer ? buildPeer() : undefined
  const socket = (name) => join(folder, `${name}.sock`)
  const bytes = String(scale.sessionBytes)
  const node = (name, file, args) =>
    startServer(process.execPath, [file, ...args], { log: join(folder, `${name}.log`) })
  const own = async (name, choice = []) => {
    await node(name, here('vfiod-server.mjs'), [socket(name), bytes, ...choice])
    return new VfiodTarget(socket(name)).prepare()
  }
  await node('daemon', DAEMON, ['--sim', MACHINE_FILE, '--socket', socket('daemon')])
  await node('raw', here('raw-server.mjs'), [socket('raw'), bytes])
  const targets = {
    daemon: await new VfiodTarget(socket('daemon')).prepare(),
    own: await own('own'),
    byLoader: await own('by-loader', ['proto-loader']),
    narrow: await own('narrow', ['64k-window']),
    plainReader: new PlainReader(socket('own')),
    rawSocket: socket('raw'),
  }
  if (built === undefined) return { targets }
  await startServer(built.path, [socket('peer'), bytes], { log: join(folder, 'peer.log') })
  const peer = new PeerTarget(socket('peer'))
  return { targets: { ...targets, peer }, peerVersion: built.version }
}

/** The contenders of a row: vfiod, the C++ peer if there is one, and others. */
const beside = (vfiod, peer, others = {}) => ({
  [VFIOD]: vfiod,
  ...(peer === undefined ? {} : { [PEER]: peer }),
  ...others,
})

const measure = async (targets, scale) => {
  const { daemon, own, byLoader, narrow, plainReader, peer, rawSocket } = targets
  const say = (what) =>
    console.error(`${(performance.now() / 1000).toFixed(0).padStart(4)} s: measuring ${what} ...`)
  const stateOf = (target) => target && (() => target.state())
  const raw = await rawPing(rawSocket)
  const bigMapBytes = Math.min(scale.bigMapBytes, 2 ** Math.floor(Math.log2(freemem() / 3)))
  try {
    say('unary calls')
    const unary = await unaryRows(
      beside(stateOf(daemon), stateOf(peer), { 'raw socket': raw.ping }),
      scale,
    )
    say('map and unmap')
    const mapping = await mappingRows(beside(daemon, peer), scale)
    say('sessions')
    const readers = beside(own, peer, {
      "proto-loader's serializer": byLoader,
      'a client with 64 KiB': plainReader,
    })
    const writers = beside(own, peer, { 'a daemon with 64 KiB': narrow })
    const sessions = await sessionRows({ readers, writers, rawSocket }, scale)
    say('unary calls during a map')
    const busy = await busyRows(beside(own, peer), { ...scale, bigMapBytes })
    return [...unary, ...mapping, ...sessions, ...busy]
  } finally {
    raw.close()
    for (const target of [daemon, own, byLoader, narrow, plainReader, peer]) target?.close()
  }
}

const main = async () => {
  // As vfioctl does. The client is the same for every contender, and should not be what is measured.
  tuneCollector()
  const options = readOptions(process.argv.slice(2))
  if (options.help) return console.log(USAGE)
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
    console.log('does better. The map is one sleeping system call that faults in every page: the')
    console.log(`simulator alone would answer at once. Written to ${out}`)
  } finally {
    await stopServers()
    rmSync(folder, { recursive: true, force: true })
  }
}

await main()
