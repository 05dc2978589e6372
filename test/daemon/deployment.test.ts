// What docs/deployment.md says of a daemon without privileges, and what the Dockerfile makes of it.

import { execFile } from 'node:child_process'
import { chmodSync, chownSync, existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { canBeOthers, noOtherUsers } from '../other-users.ts'
import { DaemonProcess } from './daemon-process.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string): string => readFileSync(`${root}${path}`, 'utf8')
const VFIOCTL = `${root}dist/cli/vfioctl.js`
const STRANGER = 65533

const [, UID = ''] = /^USER (\d+):/m.exec(read('Dockerfile')) ?? []
const nobody = Number(UID)

describe('the Dockerfile', () => {
  test('has a user who is not root, as the document says', () => {
    expect(nobody).toBeGreaterThan(0)
    expect(read('docs/deployment.md')).toContain(`user ${nobody}`)
  })

  test('copies what there is, and names no registry', () => {
    const dockerfile = read('Dockerfile')
    const [, copied = ''] = /^COPY ([^\n]+) \.\/\nRUN npm ci/m.exec(dockerfile) ?? []

    expect(copied.split(' ').map((file) => existsSync(`${root}${file}`))).toEqual([
      true,
      true,
      true,
    ])
    for (const [, image = ''] of dockerfile.matchAll(/^FROM (\S+)/gm))
      expect(image).toMatch(/^[a-z]+:[\w.-]+$/)
  })
})

describe.runIf(canBeOthers)(`a daemon that runs as that user${noOtherUsers}`, () => {
  let daemon: DaemonProcess

  beforeEach(async () => {
    daemon = new DaemonProcess({ uid: nobody })
    chmodSync(daemon.directory, 0o755)
    chownSync(daemon.directory, nobody, nobody)
    const policy = daemon.write('policy.toml', '[[rule]]\nrole = "operate"\n')
    await daemon.start({ policy, socket_mode: '0666' })
  })
  afterEach(() => daemon.remove())

  /** A client of this user, in a process of its own; answers what it said. */
  const vfioctl = async (uid: number, ...args: readonly string[]): Promise<string> => {
    const command = [VFIOCTL, '--socket', daemon.socket, ...args]
    const { stdout, stderr } = await promisify(execFile)(process.execPath, command, {
      uid,
      gid: uid,
    }).catch((error: { readonly stdout: string; readonly stderr: string }) => error)
    return stdout + stderr
  }

  test('serves clients of the same user', async () => {
    expect(await vfioctl(nobody, 'map', '--group', '1', '--length', '64K')).toContain(
      'mapped 64 KiB',
    )
  })

  test('refuses those of another, whom it may not look at: UNKNOWN_PEER', async () => {
    const answer = await vfioctl(STRANGER, 'groups')

    expect(answer).toContain('UNKNOWN_PEER')
    expect(answer).toContain(`belongs to uid ${STRANGER}`)
    expect(answer).toContain('without CAP_SYS_PTRACE')
  })
})
