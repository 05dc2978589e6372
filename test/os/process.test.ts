import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { eventfdCreate } from '../../src/os/eventfd.ts'
import { sys } from '../../src/os/libc.ts'
import {
  hasExited,
  isAlive,
  openPidfd,
  pidfdInode,
  pidOf,
  processName,
  sameMm,
  startTimeOf,
} from '../../src/os/process.ts'

const children: ChildProcess[] = []
const start = (): { child: ChildProcess; pid: number } => {
  const child = spawn('cat')
  children.push(child)
  return { child, pid: child.pid as number }
}
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

test('a pidfd is alive until the process exits', async () => {
  const { child, pid } = start()
  const pidfd = openPidfd(pid)

  const before = isAlive(pidfd)
  child.kill('SIGKILL')
  await once(child, 'exit')

  expect(before).toBe(true)
  expect(isAlive(pidfd)).toBe(false)
})

test('a process has exited on proof only: what is not a pidfd proves nothing', async () => {
  const { child, pid } = start()
  const pidfd = openPidfd(pid)
  const before = hasExited(pidfd)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const after = hasExited(pidfd)
  sys.closeSync(pidfd)

  expect([before, after]).toEqual([false, true])
  for (const noFd of [pidfd, -1, 2 ** 30]) expect(hasExited(noFd), String(noFd)).toBe(false)
})

test('a pidfd tells the pid, and ESRCH once the process is reaped', async () => {
  const { child, pid } = start()
  const pidfd = openPidfd(pid)

  const before = pidOf(pidfd)
  child.kill('SIGKILL')
  await once(child, 'exit')

  expect(before).toBe(pid)
  expect(pidOf(pidfd)).toBe(-ERRNO.ESRCH)
  expect(openPidfd(pid)).toBe(-ERRNO.ESRCH)
})

test('the inode of a pidfd is the same for one process and another for the next', () => {
  const [one, other] = [start().pid, start().pid]

  const inode = pidfdInode(openPidfd(one))

  expect(pidfdInode(openPidfd(one))).toBe(inode)
  expect(pidfdInode(openPidfd(other))).not.toBe(inode === -ERRNO.EOPNOTSUPP ? undefined : inode)
})

test('an fd that is not a pidfd has no process inode: EOPNOTSUPP', () => {
  expect(pidfdInode(eventfdCreate())).toBe(-ERRNO.EOPNOTSUPP)
  expect(pidfdInode(9999)).toBe(-ERRNO.EBADF)
})

test('the start time is field 22 of stat, whatever the name holds', async () => {
  const script = "process.title = ') 1 2 (x'; console.log('ready'); setInterval(() => {}, 1000)"
  const child = spawn(process.execPath, ['-e', script])
  children.push(child)
  await once(child.stdout, 'data')
  const pid = child.pid as number

  const started = startTimeOf(pid) as bigint

  const uptimeS = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  expect(processName(pid)).toBe(') 1 2 (x')
  expect(started).toBeGreaterThan(startTimeOf(1) as bigint)
  expect(Number(started) / 100).toBeLessThanOrEqual(uptimeS)
})

test('a name has nothing that a terminal would obey', async () => {
  const title = String.raw`\x1b]0;x\x07\n\u202e`
  const script = `process.title = '${title}'; console.log('ready'); setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['-e', script])
  children.push(child)
  await once(child.stdout, 'data')

  expect(processName(child.pid as number)).toBe('?]0;x???')
})

test('a pid without a process is refused: ENOENT', () => {
  expect(startTimeOf(2 ** 22 + 1)).toBe(-ERRNO.ENOENT)
  expect(processName(2 ** 22 + 1)).toBe(-ERRNO.ENOENT)
})

test('a process shares its mm with itself, and not with a child', async () => {
  expect(await sameMm(process.pid, process.pid)).toBe(true)
  expect(await sameMm(process.pid, start().pid)).toBe(false)
})

test('two mms cannot be compared when one process is gone', async () => {
  expect(await sameMm(process.pid, 2 ** 22 + 1)).toBeUndefined()
})
