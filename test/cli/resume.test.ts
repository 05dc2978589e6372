/** vfioctl migrate over a connection that breaks in the middle of the stream. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, connect as dial, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { mlx5Like, SOURCE, TARGET } from '../system/mlx5-like.ts'
import { type Daemon, startDaemon } from '../system/world.ts'
import { run } from './vfioctl.ts'

const STATE = { bytes: 0x100_0000, dirtyPagesPerStep: 0 }

/**
 * A socket in front of the daemon's that breaks each of its first connections once so many bytes went
 * through it. The peer that the daemon sees is this process, before and after.
 */
class Breaking {
  readonly #server: Server
  /** Connections that broke. */
  broken = 0
  /** After how many bytes, in either direction, the next ones do. */
  after: number[] = []

  constructor(path: string, target: string) {
    this.#server = createServer((near) => {
      const far = dial(target)
      const limit = this.after.shift()
      let bytes = 0
      const end = () => {
        near.destroy()
        far.destroy()
      }
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on('data', (data) => {
          bytes += data.length
          if (limit === undefined || bytes < limit) return
          this.broken += 1
          end()
        })
        from.on('error', end)
        from.on('close', end)
        from.pipe(to)
      }
    }).listen(path)
  }

  close(): void {
    this.#server.close()
  }
}

describe('vfioctl migrate, when its connection breaks', () => {
  let cwd: string
  let daemon: Daemon
  let proxy: Breaking

  beforeAll(async () => {
    cwd = mkdtempSync(join(tmpdir(), 'vfioctl-resume-'))
    daemon = await startDaemon(mlx5Like(SOURCE, 9, STATE) + mlx5Like(TARGET, 10, STATE))
    proxy = new Breaking(join(cwd, 'breaking.sock'), daemon.socket)
  })
  afterAll(async () => {
    proxy.close()
    expect(await daemon?.stop()).toBe(0)
    rmSync(cwd, { recursive: true, force: true })
  })

  const migrate = async (...args: string[]) => {
    const socket = join(cwd, 'breaking.sock')
    const { code, stdout, stderr } = await run(['--json', 'migrate', ...args], { socket, cwd })
    if (code !== 0) throw new Error(`${stderr}${stdout}${daemon.output()}`)
    return JSON.parse(stdout)
  }

  test('save goes on and loses no byte, and load goes on and writes none twice', async () => {
    const whole = await migrate('save', SOURCE, 'whole')
    proxy.after = [3 << 20, 5 << 20]
    const broken = await migrate('save', SOURCE, 'broken')
    expect(proxy.broken).toBe(2)

    proxy.after = [2 << 20, 6 << 20]
    const loaded = await migrate('load', TARGET, 'broken')
    expect(proxy.broken).toBe(4)

    expect(broken.sha256).toBe(whole.sha256)
    expect(readFileSync(join(cwd, 'broken')).equals(readFileSync(join(cwd, 'whole')))).toBe(true)
    expect(loaded).toMatchObject({ bytes: String(whole.bytes), sha256: whole.sha256 })
    expect(loaded.state).toBe('MIGRATION_STATE_RUNNING')
  })
})
