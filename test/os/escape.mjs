// Tries what a front must not be able to do, and prints how each attempt ended.
import { execFileSync, spawnSync } from 'node:child_process'
import { openSync, readFile, renameSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { bind, call } from '../../dist/os/async-call.js'
import { sys } from '../../dist/os/libc.js'
import { forbidIoUring, forbidTheRest } from '../../dist/os/seccomp.js'

const [how, parent] = process.argv.slice(2)
const EPERM = -1
const x64 = process.arch === 'x64'
const ptrace = bind('ptrace', 'long', ['long', 'long', 'long', 'long'])
const PTRACE_SEIZE = 0x4206

if (how === 'forbidden' && process.env.WITHOUT_URING === undefined) {
  // A process that starts after this has no io_uring, as a front has none.
  forbidIoUring()
  const again = spawnSync(process.execPath, process.argv.slice(1), {
    env: { ...process.env, WITHOUT_URING: '1' },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  process.exit(again.status ?? 1)
}
if (how === 'forbidden' && forbidTheRest() < 0) throw new Error('no seccomp')

const outcome = (attempt) => {
  try {
    const answer = attempt()
    return answer === EPERM ? 'EPERM' : 'done'
  } catch (error) {
    return error.code ?? String(error)
  }
}
const waited = (start) => new Promise((resolve) => start((error) => resolve(error?.code ?? 'done')))

const answers = {
  'open a file': outcome(() => openSync('/etc/passwd', 'r')),
  'open a device node': outcome(() => openSync('/dev/vfio/vfio', 'r+')),
  'rename a file': outcome(() => renameSync('/nowhere/a', '/nowhere/b')),
  'run a program': outcome(() => execFileSync('/bin/true')),
  'look at another process': outcome(() => process.kill(Number(parent), 0)),
  'trace another process': outcome(() => {
    const answer = call(ptrace, PTRACE_SEIZE, 999_999_999, 0, 0)
    return answer
  }),
  'open a pidfd': outcome(() => sys.syscall(434, Number(parent), 0)),
  'make an io_uring': outcome(() => (sys.syscall(425, 1, 0) === EPERM ? EPERM : 0)),
  'open a file on the thread pool': await waited((done) => readFile('/etc/hostname', done)),
  'connect a socket': await waited((done) => connect('/nowhere/socket').on('error', done)),
  'listen on a socket': await waited((done) =>
    createServer()
      .on('error', done)
      .listen(0, '127.0.0.1', function () {
        this.close()
        done()
      }),
  ),
  'change its user': outcome(() => sys.syscall(x64 ? 105 : 146, process.getuid())),
}
process.stdout.write(JSON.stringify(answers))
