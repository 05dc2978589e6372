/**
 * docs/vfioctl.md and vfioctl say the same: every command and option is there, and every example
 * answers what is printed. `npx vitest run test/cli/docs.test.ts -u` writes the answers anew.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { buildProgram } from '../../src/cli/program.ts'
import { type Daemon, startDaemon } from '../system/world.ts'
import { type Running, run, start } from './vfioctl.ts'

// Each of some sixty commands is a process, one after another; a busy machine takes its time for them.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 120_000 })

const PATH = fileURLToPath(new URL('../../docs/vfioctl.md', import.meta.url))
const document = readFileSync(PATH, 'utf8')

/** The commands that do something, by their full names. */
const leaves = (command: Command, name = command.name()): [string, Command][] =>
  command.commands.length === 0
    ? [[name, command]]
    : command.commands.flatMap((each) => leaves(each, `${name} ${each.name()}`))

const sections = new Map(
  document
    .split(/^## /m)
    .map((section): [string, string] => [section.split('\n', 1)[0] ?? '', section]),
)

describe('docs/vfioctl.md', () => {
  const commands = leaves(buildProgram())

  test('has a section for every command, and no other', () => {
    const named = [...sections.keys()].filter((title) => title.startsWith('vfioctl '))

    expect(named).toEqual(commands.map(([name]) => name))
  })

  test.each(commands)('names every option of %s', (name, command) => {
    const section = sections.get(name)
    const missing = command.options.filter(({ long }) => !section?.includes(long ?? ''))

    expect(missing.map(({ long }) => long)).toEqual([])
  })

  test('names every option that all commands share', () => {
    const section = sections.get('For every command')
    const missing = buildProgram().options.filter(({ long }) => !section?.includes(long ?? ''))

    expect(missing.map(({ long }) => long)).toEqual([])
  })
})

/** The rule that the built-in policy has besides root's where the daemon does not run as root. */
const OWN_RULE = new RegExp(
  `\\[\\[rule\\]\\]\\nuser = ${process.geteuid?.() || 'absent'}\\n[^]*?\\[rule\\.quota\\]\\n`,
)

/** What differs from run to run, replaced by something that does not. */
const steady = (text: string): string => {
  let clients = 0
  return text
    .replace(OWN_RULE, '')
    .replaceAll(/vfioctl-[0-9a-f]{6}/g, 'vfioctl-3f9a1c')
    .replaceAll(/^[0-9a-f]{64}$/gm, 'TOKEN')
    .replaceAll(/^(tracked for +)[\d.]+ s$/gm, '$1' + '0.4 s')
    .replaceAll(/memory [0-9a-f-]{36}/g, 'memory 7f3a0c1e-52d4-4b6f-9a85-0d2e61c4b7f9')
    .replaceAll(/pid \d+/g, 'pid 4711')
    .replaceAll(/uid \d+/g, 'uid 1000')
    .replaceAll(/^\d+-[0-9a-f]{10}: pid \d+/gm, () => {
      clients += 1
      const pid = 4610 + 101 * clients
      return `${pid}-5d1c0a9be${clients}: pid ${pid}`
    })
}

/** What the documents call the client that holds an address space. */
const HOLDER = '4711-5d1c0a9be1'

describe('the examples of docs/vfioctl.md', () => {
  let daemon: Daemon
  let cwd: string

  /** The name of the client that the documents call HOLDER: whoever holds an address space. */
  const holder = async (): Promise<string> => {
    const { clients } = await daemon.client().admin.listClients()
    return clients.find(({ spaceIds }) => spaceIds.length > 0)?.clientId ?? HOLDER
  }

  beforeAll(async () => {
    daemon = await startDaemon()
    cwd = mkdtempSync(join(tmpdir(), 'vfioctl-docs-'))
  })

  afterAll(async () => {
    await daemon.stop()
    rmSync(cwd, { recursive: true })
  })

  /** Runs the `$` lines of a block, and answers the block as it should be. */
  const replay = async (block: string): Promise<string> => {
    const lines: string[] = []
    const background: Running[] = []
    // What the documents call TOKEN: the one that was printed last.
    let token = 'TOKEN'
    for (const line of block.split('\n').filter((each) => each.startsWith('$ vfioctl '))) {
      const [, , ...plain] = line.split(' ')
      const client = plain.includes(HOLDER) ? await holder() : HOLDER
      const real: Readonly<Record<string, string>> = { [HOLDER]: client, TOKEN: token }
      const words = plain.map((word) => real[word] ?? word)
      const options = { socket: daemon.socket, cwd }
      if (words.at(-1) === '&') {
        const running = start(words.slice(0, -1), options)
        await running.says('Ctrl-C ends')
        background.push(running)
        lines.push(line)
      } else {
        const { stdout, stderr } = await run(words, options)
        token = /^[0-9a-f]{64}$/m.exec(stdout)?.[0] ?? token
        const said = `${stdout}${stderr}`
          .replaceAll(dirname(daemon.socket), '/run/vfiod')
          .replaceAll(client, HOLDER)
        lines.push(line, steady(said).trimEnd())
      }
    }
    for (const running of background) {
      running.interrupt()
      await running.outcome
    }
    return lines.join('\n')
  }

  test('answer what is printed there', async () => {
    let replayed = ''
    for (const part of document.split(/(?<=^```console\n)([^`]*)(?=\n```$)/m))
      replayed += part.startsWith('$ vfioctl ') ? await replay(part) : part

    await expect(replayed).toMatchFileSnapshot(PATH)
  })
})
