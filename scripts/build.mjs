/** Generates the types of the protos into src/proto, then compiles src into dist. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
/** What went wrong is on the terminal by then. */
const run = (script, args) => {
  const { status } = spawnSync(process.execPath, [`${root}node_modules/${script}`, ...args], {
    cwd: root,
    stdio: ['ignore', script.startsWith('typescript') ? 'inherit' : 'ignore', 'inherit'],
  })
  if (status !== 0) process.exit(status ?? 1)
}

run('@grpc/proto-loader/build/bin/proto-loader-gen-types.js', [
  '--longs=String',
  '--enums=String',
  '--defaults',
  '--oneofs',
  '--bytes=Buffer',
  '--grpcLib=@grpc/grpc-js',
  '--importFileExtension=.js',
  '--includeDirs=proto',
  '--outDir=src/proto',
  ...readdirSync(`${root}proto/vfiod/v1`).map((file) => `vfiod/v1/${file}`),
  'google/rpc/status.proto',
  'google/rpc/error_details.proto',
])
// The generator declares names it does not use; the project's strict rules are not for its output.
for (const file of ['common.ts', 'error_details.ts', 'status.ts']) {
  const path = `${root}src/proto/${file}`
  writeFileSync(path, `// @ts-nocheck\n${readFileSync(path, 'utf8')}`)
}
run('typescript/bin/tsc', ['-p', 'tsconfig.build.json'])
