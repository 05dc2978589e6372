/** The bench runs and measures every row; how fast anything is, it is not asked here. */
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'

const BENCH = fileURLToPath(new URL('../bench/run.mjs', import.meta.url))

interface Figure {
  readonly median: number
  readonly samples: readonly number[]
}

interface Report {
  readonly machine: { readonly node: string; readonly cpus: number; readonly kernel: string }
  readonly rows: readonly {
    readonly name: string
    readonly vfiod: Figure
    readonly peers: readonly (Figure & { readonly name: string; readonly ratio: number })[]
  }[]
}

const runSmoke = async (): Promise<{ report: Report; stdout: string }> => {
  const folder = mkdtempSync(join(tmpdir(), 'vfiod-bench-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const out = join(folder, 'report.json')
  const args = [BENCH, '--smoke', '--out', out]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return { report: JSON.parse(readFileSync(out, 'utf8')), stdout }
}

const isPositive = ({ median, samples }: Figure): boolean =>
  median > 0 && samples.length > 0 && samples.every((sample) => sample > 0)

test('npm run bench measures every row, beside its peers, and writes it down', async () => {
  const { report, stdout } = await runSmoke()

  const readPeers = [
    'one process',
    "proto-loader's serializer",
    'a client with 64 KiB',
    'raw socket',
  ]
  const writePeers = ['one process', 'one process with 64 KiB', 'raw socket']
  const peersOf = Object.fromEntries(
    report.rows.map(({ name, peers }) => [name, peers.map((peer) => peer.name)]),
  )
  expect(peersOf).toEqual({
    'unary latency, median': ['one process', 'raw socket'],
    'unary latency, p99': ['one process', 'raw socket'],
    'unary rate, 1 in flight': ['one process', 'raw socket'],
    'unary rate, 4 in flight': ['one process', 'raw socket'],
    'unary latency, p99, 4 in flight': ['one process', 'raw socket'],
    'map, 1 item per call': ['one process'],
    'unmap, 1 item per call': ['one process'],
    'map, 8 items per call': ['one process'],
    'unmap, 8 items per call': ['one process'],
    'session read': readPeers,
    'session read, CPU of the server': readPeers,
    'session write': writePeers,
    'session write, CPU of the server': writePeers,
    'unary latency during a map of 256 MiB, median': ['one process', 'vfiod without a map'],
    'unary latency during a map of 256 MiB, p99': ['one process', 'vfiod without a map'],
    'unary latency during a map of 256 MiB, worst': ['one process', 'vfiod without a map'],
    'worst unary latency, share of that map': ['one process'],
    'the map itself': ['one process'],
  })
  for (const { name, vfiod, peers } of report.rows) {
    expect(vfiod, name).toSatisfy(isPositive)
    for (const peer of peers) {
      expect(peer, name).toSatisfy(isPositive)
      expect(peer.ratio, name).toBeGreaterThan(0)
    }
    expect(stdout).toContain(name)
  }
  expect(report.machine).toMatchObject({ node: process.version, cpus: expect.any(Number) })
}, 120_000)

test('npm run bench -- sim measures requests by how many mappings there are', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vfiod-bench-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const out = join(folder, 'report.json')
  await promisify(execFile)(process.execPath, [BENCH, 'sim', '--smoke', '--out', out])

  const { rows } = JSON.parse(readFileSync(out, 'utf8'))
  const requests = ['map', 'unmap', 'find']
  const names = ['type1', 'iommufd'].flatMap((backend) =>
    requests.map((request) => `${backend}, ${request}`),
  )
  expect(rows.map(({ name }: { name: string }) => name)).toEqual(names)
  expect(
    rows.every(({ us }: { us: number[] }) => us.length === 3 && us.every((it) => it > 0)),
  ).toBe(true)
})
