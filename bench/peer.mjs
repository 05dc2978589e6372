/**
 * Builds the C++ peer from Debian's gRPC into a cache folder outside the repository, named after
 * everything it is made of, so that it is built once.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SOURCE_DIR = fileURLToPath(new URL('peer', import.meta.url))
const PROTO_DIR = fileURLToPath(new URL('../proto', import.meta.url))
/** grpc++ does not depend on the headers of protobuf; it only recommends them. */
const PACKAGES = [
  'g++',
  'make',
  'pkg-config',
  'libgrpc++-dev',
  'libprotobuf-dev',
  'protobuf-compiler-grpc',
]

const run = (command, args, options = {}) =>
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'], ...options })

const succeeds = (command, args) => {
  try {
    run(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const isInstalled = () =>
  succeeds('pkg-config', ['--exists', 'grpc++', 'protobuf']) &&
  ['g++', 'make', 'protoc', 'grpc_cpp_plugin'].every((tool) => succeeds('which', [tool]))

const install = () => {
  const command = `apt-get install --no-install-recommends ${PACKAGES.join(' ')}`
  if (process.getuid() !== 0 || !succeeds('which', ['apt-get']))
    throw new Error(`the C++ peer needs packages: run ${command}, or leave it out with --no-peer`)
  console.error(`Installing what the C++ peer is built from: ${PACKAGES.join(' ')} ...`)
  run('apt-get', ['update', '-qq'])
  run('apt-get', ['install', '-qq', '-y', '--no-install-recommends', ...PACKAGES], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
}

const hashOf = (files) => {
  const hash = createHash('sha256')
  for (const file of files) hash.update(readFileSync(file))
  return hash.digest('hex').slice(0, 12)
}

/** The path of the built peer, and the version of the library it stands for. */
export const buildPeer = () => {
  if (!isInstalled()) install()
  const protos = readdirSync(join(PROTO_DIR, 'vfiod/v1')).map((name) => `vfiod/v1/${name}`)
  const hash = hashOf([
    join(SOURCE_DIR, 'server.cc'),
    join(SOURCE_DIR, 'Makefile'),
    ...protos.map((name) => join(PROTO_DIR, name)),
  ])
  const cache = process.env.VFIOD_CACHE ?? join(homedir(), '.cache', 'vfiod')
  const folder = join(cache, `bench-peer-${hash}`)
  const path = join(folder, 'peer')
  if (!existsSync(path)) {
    console.error(`Building the C++ peer in ${folder} ...`)
    mkdirSync(folder, { recursive: true })
    run('make', ['-j2', '-f', join(SOURCE_DIR, 'Makefile'), `PROTO_DIR=${PROTO_DIR}`], {
      cwd: folder,
    })
  }
  const version = execFileSync('pkg-config', ['--modversion', 'grpc++'], { encoding: 'utf8' })
  return { path, version: version.trim() }
}
