// The plan of the house: which rooms there are, who may import whom, and how a file looks. A change
// that needs an arrow up has its code on the wrong floor.

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const SRC = fileURLToPath(new URL('../src', import.meta.url))

interface Room {
  /** Rooms it may import besides itself. */
  readonly rooms: readonly string[]
  /** npm packages it may import. */
  readonly packages: readonly string[]
  /** Pure rooms know no Node: values in, values out. */
  readonly isPure?: true
}

const PROGRAM = ['base', 'os', 'wire', 'proto', 'client']

/** Floor by floor, from the ground up. */
const ROOMS: Readonly<Record<string, Room>> = {
  base: { rooms: [], packages: [], isPure: true },
  proto: { rooms: [], packages: ['@grpc/grpc-js', '@grpc/proto-loader'] },
  abi: { rooms: ['base'], packages: [], isPure: true },
  rules: { rooms: ['base'], packages: [], isPure: true },
  os: { rooms: ['base'], packages: ['koffi'] },
  link: { rooms: ['base'], packages: [] },
  wire: { rooms: ['base', 'proto'], packages: ['@grpc/grpc-js', '@grpc/proto-loader'] },
  kernel: { rooms: ['base', 'abi', 'rules', 'os'], packages: [] },
  'backends/linux': { rooms: ['base', 'os', 'kernel'], packages: [] },
  'backends/sim': {
    rooms: ['base', 'abi', 'rules', 'os', 'kernel'],
    packages: ['smol-toml', 'zod'],
  },
  domain: { rooms: ['base', 'rules', 'os', 'kernel'], packages: [] },
  client: {
    rooms: ['base', 'os', 'wire', 'proto'],
    packages: ['@grpc/grpc-js', '@grpc/proto-loader'],
  },
  api: {
    rooms: ['base', 'rules', 'os', 'link', 'wire', 'proto', 'domain'],
    packages: ['@grpc/grpc-js', '@grpc/proto-loader'],
  },
  front: {
    rooms: ['base', 'os', 'link', 'wire'],
    packages: ['@grpc/grpc-js', '@grpc/proto-loader', '@grpc/reflection', 'grpc-health-check'],
  },
  cli: {
    rooms: PROGRAM,
    packages: ['@grpc/grpc-js', 'commander', 'cli-table3', 'cli-progress'],
  },
  demo: {
    rooms: PROGRAM,
    packages: ['@grpc/grpc-js', 'cli-table3', 'cli-progress'],
  },
  // Processes with the rights that the daemon does not have, and how it asks them.
  helper: {
    rooms: ['base', 'rules', 'os', 'kernel', 'backends/linux'],
    packages: ['commander'],
  },
  daemon: {
    rooms: [
      ...['base', 'abi', 'rules', 'os', 'link', 'wire', 'proto', 'kernel', 'domain', 'api'],
      ...['backends/linux', 'backends/sim', 'helper'],
    ],
    packages: ['pino', 'smol-toml', 'zod', 'commander'],
  },
}

/**
 * The folders of rooms that have some, each with the folders of the same room that it may import.
 * A file that lies in none of them stands above them all.
 */
const FOLDERS: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  rules: { causes: [] },
  domain: {
    state: [],
    identity: ['state'],
    host: ['state', 'identity'],
    memory: ['state', 'identity'],
    iommu: [],
    space: ['state', 'identity', 'host', 'memory', 'iommu'],
    device: ['state', 'identity', 'host', 'memory', 'iommu', 'space'],
    migration: ['state', 'identity', 'host', 'memory', 'iommu', 'space', 'device'],
    dirty: ['state', 'identity', 'host', 'memory', 'iommu', 'space', 'device'],
  },
  // Who calls; what happens around every call; how calls come in; what they do.
  api: {
    identity: [],
    call: ['identity'],
    transport: ['identity', 'call'],
    services: ['identity', 'call'],
  },
  // The kernel's own order: files, what translates, what hands out devices, the devices.
  'backends/sim': {
    spec: [],
    'machine-file': ['spec'],
    core: [],
    file: ['core'],
    iommu: ['spec'],
    type1: ['spec', 'core', 'file', 'iommu'],
    iommufd: ['spec', 'core', 'file', 'iommu'],
    vfio: ['spec', 'core', 'file', 'iommu', 'type1', 'iommufd'],
    devices: ['core', 'file', 'iommu', 'vfio'],
    'devices/profiles': ['spec', 'core', 'file', 'iommufd', 'vfio', 'devices'],
    'devices/mtty': ['core', 'file', 'vfio'],
    'devices/pci': ['spec', 'core', 'file', 'iommu', 'vfio', 'devices', 'devices/profiles'],
    machine: [
      ...['spec', 'core', 'file', 'iommu', 'type1', 'iommufd', 'vfio'],
      ...['devices', 'devices/mtty', 'devices/pci'],
    ],
    sysfs: ['spec', 'file', 'iommu', 'type1', 'iommufd', 'vfio', 'devices/pci', 'machine'],
  },
}

/** What other rooms may know of the simulator: its entry, and how a machine is described. */
const SIM_ENTRY = /^backends\/sim\/(sim\.ts|spec\/|machine-file\/)/

/** The port is all that backends know of the kernel room. */
const PORT = 'kernel/port.ts'

const LINES_MAX = 400

const filesIn = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length).replace(/^\//, ''))

/** `backends/sim/sim.ts` -> `backends/sim`: the longest room name that the path starts with. */
const roomOf = (file: string): string | undefined =>
  Object.keys(ROOMS)
    .filter((room) => file.startsWith(`${room}/`))
    .sort((a, b) => b.length - a.length)[0]

/** `domain`, `domain/space/space.ts` -> `space`, `devices/pci` of a folder in a folder; undefined
 * for a file above the folders. */
const folderOf = (room: string, file: string): string | undefined => {
  const rest = file.slice(room.length + 1)
  return rest.includes('/') ? dirname(rest) : undefined
}

const generated = (file: string): boolean => file.startsWith('proto/')

const sources = filesIn(SRC)
const written = sources.filter((file) => !generated(file))
const textOf = new Map(sources.map((file) => [file, readFileSync(join(SRC, file), 'utf8')]))

/** What a file imports or exports from, types included, and `import()` as well. */
const importsOf = (file: string): string[] => {
  const text = textOf.get(file) ?? ''
  const statements =
    /^(?:import|export)\b[^'"]*?\bfrom\s+['"]([^'"]+)['"]|^import\s+['"]([^'"]+)['"]/gm
  const calls = /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g
  return [...text.matchAll(statements), ...text.matchAll(calls)].map(
    ([, from, bare]) => from ?? bare ?? '',
  )
}

const isRelative = (specifier: string): boolean => specifier.startsWith('.')

const targetOf = (file: string, specifier: string): string =>
  normalize(join(dirname(file), specifier)).replace(/\.js$/, '.ts')

/** `@grpc/grpc-js/build/x` -> `@grpc/grpc-js` */
const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

describe('the house', () => {
  test('has every file in a room', () => {
    expect(sources.filter((file) => roomOf(file) === undefined)).toEqual([])
  })

  test('has no room without a file', () => {
    const inhabited = new Set(sources.map(roomOf))

    expect(Object.keys(ROOMS).filter((room) => !inhabited.has(room))).toEqual([])
  })

  test('has every folder of the plan, and no other, in the rooms that have folders', () => {
    for (const [room, folders] of Object.entries(FOLDERS)) {
      const found = new Set(
        written.filter((file) => roomOf(file) === room).map((file) => folderOf(room, file)),
      )
      found.delete(undefined)

      expect([...found].sort(), room).toEqual(Object.keys(folders).sort())
    }
  })

  test('has no folder that reaches itself', () => {
    for (const folders of Object.values(FOLDERS)) {
      const order = Object.keys(folders)

      for (const [folder, below] of Object.entries(folders)) {
        for (const each of below) expect(order.indexOf(each)).toBeLessThan(order.indexOf(folder))
      }
    }
  })

  test('binds nothing lazily: no parameter is a function that answers a part of the domain', () => {
    const lazy = written
      .filter((file) => roomOf(file) === 'domain')
      .filter((file) =>
        /: \(\) => (Devices|Spaces|Memories|Dirty|Migration)\b/.test(textOf.get(file) ?? ''),
      )

    expect(lazy).toEqual([])
  })

  test('has a plan whose arrows point down: no room reaches itself', () => {
    const reaches = (from: string, seen: readonly string[] = []): string[] =>
      (ROOMS[from]?.rooms ?? []).flatMap((next) =>
        seen.includes(next) ? [next] : [next, ...reaches(next, [...seen, next])],
      )

    expect(Object.keys(ROOMS).filter((room) => reaches(room).includes(room))).toEqual([])
  })
})

describe('imports', () => {
  test('stay inside the room or go to a room of the plan', () => {
    const wrong = written.flatMap((file) => {
      const room = roomOf(file) ?? ''
      const allowed = [room, ...(ROOMS[room]?.rooms ?? [])]
      return importsOf(file)
        .filter(isRelative)
        .map((specifier) => targetOf(file, specifier))
        .filter((target) => !allowed.includes(roomOf(target) ?? 'outside'))
        .map((target) => `${file} -> ${target}`)
    })

    expect(wrong).toEqual([])
  })

  test('between the folders of a room follow their order', () => {
    const wrong = Object.entries(FOLDERS).flatMap(([room, folders]) =>
      written
        .filter((file) => roomOf(file) === room)
        .flatMap((file) => {
          const from = folderOf(room, file)
          if (from === undefined) return []
          const allowed = [from, ...(folders[from] ?? [])]
          return importsOf(file)
            .filter(isRelative)
            .map((specifier) => targetOf(file, specifier))
            .filter((target) => roomOf(target) === room)
            .filter((target) => !allowed.includes(folderOf(room, target) ?? 'above'))
            .map((target) => `${file} -> ${target}`)
        }),
    )

    expect(wrong).toEqual([])
  })

  test('of calls on containers and groups are those of domain/iommu', () => {
    const wrong = written
      .filter((file) => file.startsWith('domain/') && !file.startsWith('domain/iommu/'))
      .filter((file) =>
        /containerFd|ContainerFd|GroupFd|(container|group)-calls/.test(textOf.get(file) ?? ''),
      )

    expect(wrong).toEqual([])
  })

  test('of backends into the kernel room reach the port only', () => {
    const wrong = written
      .filter((file) => file.startsWith('backends/'))
      .flatMap((file) =>
        importsOf(file)
          .filter(isRelative)
          .map((specifier) => targetOf(file, specifier))
          .filter((target) => roomOf(target) === 'kernel' && target !== PORT)
          .map((target) => `${file} -> ${target}`),
      )

    expect(wrong).toEqual([])
  })

  test('of the simulator from outside reach its entry and its descriptions only', () => {
    const wrong = written
      .filter((file) => roomOf(file) !== 'backends/sim')
      .flatMap((file) =>
        importsOf(file)
          .filter(isRelative)
          .map((specifier) => targetOf(file, specifier))
          .filter((target) => roomOf(target) === 'backends/sim' && !SIM_ENTRY.test(target))
          .map((target) => `${file} -> ${target}`),
      )

    expect(wrong).toEqual([])
  })

  test('of packages are those that the room is for', () => {
    const wrong = written.flatMap((file) =>
      importsOf(file)
        .filter((specifier) => !isRelative(specifier) && !specifier.startsWith('node:'))
        .map(packageOf)
        .filter((name) => !ROOMS[roomOf(file) ?? '']?.packages.includes(name))
        .map((name) => `${file} -> ${name}`),
    )

    expect(wrong).toEqual([])
  })

  test('of Node do not appear in pure rooms', () => {
    const wrong = written
      .filter((file) => ROOMS[roomOf(file) ?? '']?.isPure)
      .filter((file) => importsOf(file).some((specifier) => specifier.startsWith('node:')))

    expect(wrong).toEqual([])
  })

  test('have no circles, types included', () => {
    const done = new Set<string>()
    const circles: string[] = []
    const visit = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) {
        circles.push([...path.slice(path.indexOf(file)), file].join(' -> '))
        return
      }
      if (done.has(file)) return
      for (const specifier of importsOf(file).filter(isRelative))
        visit(targetOf(file, specifier), [...path, file])
      done.add(file)
    }
    for (const file of written) visit(file, [])

    expect(circles).toEqual([])
  })

  test('end in .ts, so that both Node and the compiler find them', () => {
    const wrong = written.flatMap((file) =>
      importsOf(file)
        .filter((specifier) => isRelative(specifier) && !specifier.endsWith('.ts'))
        .map((specifier) => `${file} -> ${specifier}`),
    )

    expect(wrong).toEqual([])
  })
})

describe('a file', () => {
  const OPENS_WITH_COMMENT = /^(#!.*\n)?(\/\*\*|\/\/)/

  test('opens by saying what it is', () => {
    const silent = written.filter((file) => !OPENS_WITH_COMMENT.test(textOf.get(file) ?? ''))

    expect(silent).toEqual([])
  })

  test(`has fewer than ${LINES_MAX} lines`, () => {
    const long = written.filter((file) => (textOf.get(file) ?? '').split('\n').length > LINES_MAX)

    expect(long).toEqual([])
  })

  test('has a name in kebab-case that says what the file is', () => {
    const heap = /(^|\/)(utils?|helpers?|types?|common|misc|index)\.ts$/
    const wrong = written.filter((file) => !/^[a-z0-9/-]+\.ts$/.test(file) || heap.test(file))

    expect(wrong).toEqual([])
  })

  test('exports by name', () => {
    const wrong = written.filter((file) =>
      /^export default\b|^export \*/m.test(textOf.get(file) ?? ''),
    )

    expect(wrong).toEqual([])
  })
})

describe('a type name', () => {
  /** The exported types of the written files, each with the files that declare it. */
  const declaredIn = new Map<string, string[]>()
  for (const file of written) {
    const declarations = /^export (?:declare )?(?:abstract )?(?:type|interface|class) (\w+)/gm
    for (const [, name = ''] of (textOf.get(file) ?? '').matchAll(declarations))
      declaredIn.set(name, [...(declaredIn.get(name) ?? []), file])
  }
  test('means one thing in all of src: the outer room takes the longer name', () => {
    const doubles = [...declaredIn].filter(([, files]) => files.length > 1)

    expect(doubles.map(([name, files]) => `${name}: ${files.join(', ')}`)).toEqual([])
  })
})
