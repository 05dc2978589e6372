/**
 * The uAPI headers of this machine, and what its compiler says about them. Every question is a
 * function of its own in one C file: the compiler's complaints, by line, name the questions that
 * the headers cannot answer; a program of the others prints the answers.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const HEADERS = ['linux/vfio.h', 'linux/iommufd.h', 'linux/pci_regs.h'] as const

export interface UapiHeaders {
  /** The directory that has linux/vfio.h. */
  readonly directory: string
  /** `6.12`. */
  readonly version: string
  /** Those of the three headers that are not there. */
  readonly absent: readonly string[]
}

/** A question to the compiler: C expressions whose values are integers. */
export interface Question {
  /** Says what is asked, e.g. `struct vfio_bitmap`, `vfio_bitmap.data`, `VFIO_TYPE1_IOMMU`. */
  readonly name: string
  readonly expressions: readonly string[]
}

export const hasCompiler = (): boolean => spawnSync('cc', ['--version']).status === 0

/** A kernel's version: from linux/version.h where headers are installed, else its Makefile. */
function versionOf(directory: string): string {
  const installed = join(directory, 'linux/version.h')
  if (existsSync(installed)) {
    const code = Number(/LINUX_VERSION_CODE (\d+)/.exec(readFileSync(installed, 'utf8'))?.[1])
    return `${code >> 16}.${(code >> 8) & 0xff}`
  }
  const makefile = join(directory, '../../Makefile')
  const text = existsSync(makefile) ? readFileSync(makefile, 'utf8') : ''
  const part = (name: string) => new RegExp(`^${name} *= *(\\d+)`, 'm').exec(text)?.[1] ?? '?'
  return `${part('VERSION')}.${part('PATCHLEVEL')}`
}

const kernelTrees = (): readonly string[] =>
  existsSync('/usr/src')
    ? readdirSync('/usr/src')
        .filter((name) => /^linux-headers-6\.12.*-common$|^linux-source-6\.12/.test(name))
        .sort()
        .map((name) => join('/usr/src', name))
    : []

/**
 * The headers of a kernel where there are some (VFIOD_KERNEL_HEADERS, then a 6.12 in /usr/src),
 * and those of the system.
 */
export function findHeaders(): readonly UapiHeaders[] {
  const named = process.env.VFIOD_KERNEL_HEADERS
  const kernels = (named === undefined ? kernelTrees() : [named])
    .flatMap((tree) => [join(tree, 'include/uapi'), tree])
    .filter((directory) => existsSync(join(directory, 'linux/vfio.h')))
  if (named !== undefined && kernels.length === 0) {
    throw new Error(`Cannot use VFIOD_KERNEL_HEADERS: no include/uapi/linux/vfio.h in ${named}`)
  }
  return [...kernels.slice(0, 1), '/usr/include']
    .filter((directory) => existsSync(join(directory, 'linux/vfio.h')))
    .map((directory) => ({
      directory,
      version: versionOf(directory),
      absent: HEADERS.filter((header) => !existsSync(join(directory, header))),
    }))
}

/** One question per line, after a preamble of a known number of lines. */
function source(headers: UapiHeaders, questions: readonly Question[]): string {
  const present = HEADERS.filter((header) => !headers.absent.includes(header))
  const preamble = [
    '#include <stddef.h>',
    '#include <stdio.h>',
    '#define __user',
    // A kernel's own headers say linux/types.h and linux/ioctl.h, for which the system's do.
    ...present.map((header) => `#include "${join(headers.directory, header)}"`),
    'static void say(long long value) { printf(" %lld", value); }',
  ]
  const functions = questions.map(({ expressions }, index) => {
    const calls = expressions.map((expression) => `say((long long)(${expression}));`)
    return `static void q${index}(void) { ${calls.join(' ')} }`
  })
  const main = questions.map((_, index) => `  printf("${index}"); q${index}(); puts("");`)
  return [...preamble, '#line 1 "questions"', ...functions, 'int main(void) {', ...main, '}'].join(
    '\n',
  )
}

function compile(code: string, directory: string, flags: readonly string[]) {
  const file = join(directory, 'questions.c')
  writeFileSync(file, code)
  return spawnSync('cc', ['-std=gnu11', '-w', ...flags, file], {
    cwd: directory,
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  })
}

export interface Answers {
  /** The values of each question's expressions, by its name. */
  readonly values: ReadonlyMap<string, readonly bigint[]>
  /** The names of the questions that the headers cannot answer, in the order asked. */
  readonly lacking: readonly string[]
}

export function ask(headers: UapiHeaders, questions: readonly Question[]): Answers {
  const directory = mkdtempSync(join(tmpdir(), 'vfiod-headers-'))
  try {
    const check = compile(source(headers, questions), directory, [
      '-fsyntax-only',
      '-fmax-errors=0',
    ])
    const refused = new Set(
      [...check.stderr.matchAll(/^questions:(\d+):\d+: error/gm)].map(([, line]) => Number(line)),
    )
    const answered = questions.filter((_, index) => !refused.has(index + 1))

    const build = compile(source(headers, answered), directory, ['-o', 'questions'])
    if (build.status !== 0) throw new Error(`Cannot compile the questions: ${build.stderr}`)
    const run = spawnSync(join(directory, 'questions'), { encoding: 'utf8' })
    if (run.status !== 0) throw new Error(`Cannot run the questions: ${run.stderr}`)

    const values = new Map(
      run.stdout
        .trim()
        .split('\n')
        .map((line) => line.split(' '))
        .map(
          ([index, ...rest]) => [answered[Number(index)]?.name ?? '', rest.map(BigInt)] as const,
        ),
    )
    const lacking = questions.filter((question) => !answered.includes(question))
    return { values, lacking: lacking.map(({ name }) => name) }
  } finally {
    rmSync(directory, { recursive: true })
  }
}
