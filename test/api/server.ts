/**
 * The API in this process, on real sockets, over a simulated machine or a domain that a test makes
 * up. Everything it logged is kept, for tests about what is logged and for failures.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Api } from '../../src/api/api.ts'
import type { GrantOf } from '../../src/api/identity/connection-peer.ts'
import type { Log } from '../../src/api/identity/log.ts'
import type { Administration } from '../../src/api/services/admin.ts'
import type { RemoteOptions } from '../../src/api/transport/remote-listener.ts'
import type { StartFront } from '../../src/api/transport/running-front.ts'
import { createSim } from '../../src/backends/sim/sim.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import { connect, type VfiodClient } from '../../src/client/client.ts'
import { simulatorOf } from '../../src/daemon/simulator.ts'
import { createDomain, type Domain } from '../../src/domain/domain.ts'
import type { Front } from '../../src/front/front.ts'
import { startInside } from '../../src/front/inside.ts'
import type { Grant } from '../../src/rules/policy.ts'

export interface LogLine {
  readonly level: keyof Log
  readonly message: string
  readonly fields: Readonly<Record<string, unknown>>
}

export interface TestServer {
  readonly api: Api
  /** The daemon's ends of the connections. */
  sockets(): readonly Socket[]
  readonly domain: Domain
  readonly socket: string
  readonly fdSocket: string
  readonly lines: readonly LogLine[]
  /** A connection of this process; closed with the server. */
  client(): VfiodClient
  stop(): Promise<void>
}

const keepIn = (lines: LogLine[]): Log => {
  const line = (level: keyof Log) => (fields: LogLine['fields'], message: string) => {
    lines.push({ level, message, fields })
  }
  return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') }
}

/** What a test puts in the place of a part of the domain: the verbs that are called, no others. */
export type Change = Readonly<Partial<Record<keyof Domain, object>>>

export interface ServerOptions {
  /** What an identity may do; everything where nothing is said. */
  readonly grantOf?: GrantOf
  readonly remote?: RemoteOptions
  /** The built-in one where nothing is said. */
  readonly machine?: MachineSpec
  /** In this process where nothing is said. */
  readonly startFront?: StartFront
  /** Whether the API may poke the machine; it may where nothing is said. */
  readonly isSimulated?: boolean
}

/** An administration that tells nothing and ends nothing. */
export const NO_ADMINISTRATION: Administration = {
  configuration: () => '',
  policy: () => '',
  policyStatus: () => '',
  // Whoever wants to see the daemon end starts a daemon.
  drain: () => {},
}

export const EVERYTHING: Grant = { role: 'admin', devices: ['*'], addsGroups: true, quota: {} }

/** `change` is for what no simulated machine does on demand. */
export const startServer = async (
  change: Change = {},
  options: ServerOptions = {},
): Promise<TestServer> => {
  const directory = mkdtempSync(join(tmpdir(), 'vfiod-api-'))
  // Clients of other users connect as well.
  chmodSync(directory, 0o755)
  const socket = join(directory, 'vfiod.sock')
  const fdSocket = join(directory, 'fds.sock')
  const sim = createSim(options.machine ?? defaultMachine, { time: 'auto' })
  const { kernel } = sim
  const real = createDomain({ kernel, watchMs: 20 })
  const domain = { ...real, ...change } as Domain
  const lines: LogLine[] = []
  const fronts: Front[] = []
  const api = await Api.start({
    startFront:
      options.startFront ??
      ((onExit) => {
        const started = startInside(onExit)
        fronts.push(started.front)
        return started
      }),
    domain,
    log: keepIn(lines),
    socket: { path: socket, mode: 0o666 },
    fdSocket: { path: fdSocket, mode: 0o666 },
    grantOf: options.grantOf ?? (() => EVERYTHING),
    administration: NO_ADMINISTRATION,
    ...(options.isSimulated === false ? {} : { simulator: simulatorOf(sim) }),
    ...(options.remote === undefined ? {} : { remote: options.remote }),
  })
  const clients: VfiodClient[] = []
  return {
    api,
    sockets: () => fronts.flatMap((front) => front.sockets),
    domain,
    socket,
    fdSocket,
    lines,
    client: () => {
      const client = connect({ socket })
      clients.push(client)
      return client
    },
    stop: async () => {
      for (const client of clients) client.close()
      await api.drain(1000)
      await domain.releaseAll('the test ends')
      await api.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** The real one, also while a test lets the clock of the daemon stand still. */
const { setTimeout: later } = globalThis

/** Looks until it holds; the time-out of the test is the bound. */
export const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => later(resolve, 5))
}

/** The error of a promise that is to be refused. */
export const refusal = async (promise: Promise<unknown>): Promise<unknown> => {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('the call was not refused')
}
