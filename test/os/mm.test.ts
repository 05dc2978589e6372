/** pinMm with real processes. The scripts announce each step on their output. */

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { afterEach, describe, expect, test } from 'vitest'
import { ERRNO } from '../../src/base/errno.ts'
import { type MmPin, pinMm } from '../../src/os/mm.ts'
import { isAlive, openPidfd, pidOf, sameMm } from '../../src/os/process.ts'
import { openFds, until } from './fds.ts'

interface Script {
  readonly child: ChildProcess
  readonly pid: number
  /** The next line it says. */
  readonly line: () => Promise<string>
  readonly go: () => void
}

const running: ChildProcess[] = []
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL')
})

const startScript = (command: string, ...args: string[]): Script => {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  running.push(child)
  const lines = createInterface({ input: child.stdout }) as Interface
  const iterator = lines[Symbol.asyncIterator]()
  return {
    child,
    pid: child.pid as number,
    line: async () => (await iterator.next()).value,
    go: () => child.stdin.write('go\n'),
  }
}

const pinned = async (pid: number): Promise<MmPin> => {
  const pin = await pinMm(pid)
  if (typeof pin === 'number') throw new Error(`Cannot pin: errno ${-pin}`)
  return pin
}

/** A relative that shares the mm (CLONE_VM) stays behind while the process itself execs: the same
 * image, name and length of arguments, so that without randomization every address is the same. */
const CLONE_SOURCE = `
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
static char stack[65536];
static int stay(void *arg) { prctl(PR_SET_PDEATHSIG, SIGKILL); for (;;) pause(); return 0; }
int main(int argc, char **argv) {
  char line[16];
  if (argv[argc - 1][0] == 't') { puts("execed"); fflush(stdout); return read(0, line, 16) < 0; }
  printf("%d\\n", clone(stay, stack + sizeof stack, CLONE_VM | SIGCHLD, 0));
  fflush(stdout);
  if (read(0, line, 16) < 0) return 1;
  execl(argv[0], argv[0], "then", (char *)0);
  return 1;
}
`
const compileClone = (): string | undefined => {
  const directory = mkdtempSync(join(tmpdir(), 'vfiod-mm-'))
  const [source, program] = [join(directory, 'clone.c'), join(directory, 'clone')]
  writeFileSync(source, CLONE_SOURCE)
  return spawnSync('cc', ['-o', program, source]).status === 0 ? program : undefined
}
const cloneProgram = compileClone()

describe('a pin', () => {
  test('is current while the process runs', async () => {
    const script = startScript('sh', '-c', 'echo ready; read x; echo still; read x')
    await script.line()

    const pin = await pinned(script.pid)
    script.go()
    await script.line()

    expect(pin.look()).toBe('current')
    pin.close()
  })

  test('notices an exec, which changes neither the pid nor the pidfd', async () => {
    const script = startScript('sh', '-c', 'echo ready; read x; exec sh -c "echo execed; read x"')
    await script.line()

    const pin = await pinned(script.pid)
    script.go()
    await script.line()

    expect(pin.look()).toBe('gone')
    pin.close()
  })

  test('notices an exit', async () => {
    const script = startScript('cat')
    const pin = await pinned(script.pid)

    script.child.kill('SIGKILL')
    await once(script.child, 'exit')

    expect(pin.look()).toBe('gone')
    pin.close()
  })

  test('is current for a parent that forks, and another than its child has', async () => {
    const fork = 'exec 3<&0; (read x <&3; echo left) & echo $!; wait; read x <&3'
    const script = startScript('sh', '-c', fork)
    const childPid = Number(await script.line())

    const [parent, child] = [await pinned(script.pid), await pinned(childPid)]
    const whileForked = [parent.look(), child.look(), await sameMm(script.pid, childPid)]
    script.go()
    await script.line()

    expect(whileForked).toEqual(['current', 'current', false])
    expect(parent.look()).toBe('current')
    parent.close()
    child.close()
  })

  test.skipIf(!cloneProgram)(
    'notices an exec whose former mm lives on in a CLONE_VM relative',
    async () => {
      const script = startScript(cloneProgram as string, 'once')
      const relativePid = Number(await script.line())

      const pin = await pinned(script.pid)
      const shared = await sameMm(script.pid, relativePid)
      script.go()
      await script.line()

      expect(shared).toBe(true)
      expect(await sameMm(script.pid, relativePid)).toBe(false)
      expect(pin.look()).toBe('gone')
      pin.close()
      process.kill(relativePid, 'SIGKILL')
    },
  )

  test('is not current once it is closed', async () => {
    const pin = await pinned(process.pid)

    const before = pin.look()
    pin.close()
    pin.close()

    expect([before, pin.look()]).toEqual(['current', 'gone'])
  })
})

const hasSetarch = spawnSync('setarch', ['-R', 'true']).status === 0

describe.skipIf(!cloneProgram || !hasSetarch)(
  'an exec of the same image at the same addresses',
  () => {
    const startUnrandomized = (): Script =>
      startScript('setarch', '-R', cloneProgram as string, 'once')

    test('is noticed when no process keeps the former mm', async () => {
      const script = startUnrandomized()
      const relativePidfd = openPidfd(Number(await script.line()))

      const pin = await pinned(script.pid)
      process.kill(pidOf(relativePidfd), 'SIGKILL')
      await until(() => !isAlive(relativePidfd))
      script.go()
      await script.line()

      expect(pin.look()).toBe('gone')
      pin.close()
    })
  },
)

test('a pid without a process, or without an mm, is refused and no fd is left: ESRCH', async () => {
  const before = openFds()

  expect(await pinMm(2 ** 22 + 1)).toBe(-ERRNO.ESRCH)
  // The first kernel thread, where this pid namespace shows it.
  if ((await sameMm(2, 2)) !== undefined) expect(await pinMm(2)).toBe(-ERRNO.ESRCH)
  expect(openFds()).toBeLessThanOrEqual(before)
})

test('a pidfd of a process that has exited is refused: ESRCH', async () => {
  const script = startScript('cat')
  const pidfd = openPidfd(script.pid)
  script.child.kill('SIGKILL')
  await once(script.child, 'exit')

  expect(await pinMm(process.pid, { pidfd })).toBe(-ERRNO.ESRCH)
})

test.skipIf(process.getuid?.() !== 0)('a process of another user is refused: EACCES', async () => {
  process.seteuid?.(65534)
  const answer = await pinMm(1)
  process.seteuid?.(0)

  expect(answer).toBe(-ERRNO.EACCES)
})
