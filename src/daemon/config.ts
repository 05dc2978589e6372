/**
 * The configuration: a TOML file, overridden by the environment, overridden by flags. Every key is
 * described here, and docs/configuration.md is held equal to it.
 */
import { dirname, join, resolve } from 'node:path'
import { parse, stringify } from 'smol-toml'
import { z } from 'zod'
import { ConfigError } from './config-error.ts'
import { readTrusted } from './trusted-file.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const

const path = z.string().startsWith('/', 'an absolute path is needed')

/** Permission bits as they are written everywhere: "0660". */
const mode = z
  .string()
  .regex(/^0?[0-7]{3}$/, 'three octal digits such as "0660" are needed')
  .transform((text) => Number.parseInt(text, 8))

export const configSchema = z.strictObject({
  socket: path.default('/run/vfiod/vfiod.sock').describe('The Unix socket that gRPC is served on.'),
  fd_socket: path
    .optional()
    .describe(
      'The SOCK_SEQPACKET socket for file descriptors; `fds.sock` beside `socket` if unset.',
    ),
  socket_mode: mode.prefault('0660').describe('Permission bits of both sockets.'),
  socket_group: z
    .string()
    .optional()
    .describe('The group of both sockets, by name or number; that of the daemon if unset.'),
  looks_socket: path
    .optional()
    .describe(
      'The socket of the helper that looks at processes and at the host; the daemon looks itself if unset.',
    ),
  writes_socket: path
    .optional()
    .describe('The socket of the helper that writes to sysfs; the daemon writes itself if unset.'),
  backend: z
    .enum(['linux', 'sim'])
    .default('linux')
    .describe('`linux` drives the VFIO of this host, `sim` a simulated machine.'),
  machine: path
    .optional()
    .describe(
      'With `sim`: the TOML file that describes the machine; a small default one if unset.',
    ),
  log_level: z
    .enum(LOG_LEVELS)
    .default('info')
    .describe('The lowest level that is logged; the audit has none.'),
  log_format: z
    .enum(['auto', 'json', 'text'])
    .default('auto')
    .describe('`auto` is text on a terminal, and JSON elsewhere.'),
  audit: z
    .union([z.literal(['log', 'off']), path])
    .default('log')
    .describe('Where the audit goes: `log` beside the log, a separate file, or `off`.'),
  trace: z
    .string()
    .refine((where) => where === 'stderr' || where.startsWith('/'), 'a path or "stderr" is needed')
    .optional()
    .describe(
      'Where every call to the kernel is written, decoded: an absolute path, or `stderr`; nowhere if unset.',
    ),
  policy: path
    .optional()
    .describe('The policy file (docs/policy.md); the built-in policy if unset.'),
  listen: z
    .string()
    .optional()
    .describe('`HOST:PORT` for clients on other hosts, by mutual TLS only; none if unset.'),
  tls_ca: path.optional().describe('PEM: the CA that signs the certificates of remote clients.'),
  tls_cert: path.optional().describe('PEM: the certificate of the daemon.'),
  tls_key: path.optional().describe('PEM: its private key.'),
  tls_crl: path
    .optional()
    .describe('PEM: the revoked certificates of remote clients; none are if unset.'),
  front_socket: path
    .optional()
    .describe(
      'The socket by which systemd starts fronts, each as a unit; they are processes of the daemon if unset.',
    ),
  lease_ms: z
    .int()
    .min(100)
    .max(3_600_000)
    .default(30_000)
    .describe('How long the resources of a remote client are kept after its last activity.'),
  drain_ms: z
    .int()
    .min(0)
    .max(600_000)
    .default(10_000)
    .describe('How long running calls may take to end when the daemon is told to stop.'),
})

type Parsed = z.infer<typeof configSchema>

export interface Config extends Parsed {
  readonly fd_socket: string
}

/** What flags and environment may say; undefined leaves the word to the next in line. */
export interface Overrides {
  readonly config: string | undefined
  readonly socket: string | undefined
  /** True for the default machine, else its file. */
  readonly sim: string | boolean | undefined
  readonly logLevel: string | undefined
  /** True for stderr, else a file. */
  readonly trace: string | boolean | undefined
  /** Without a flag: it belongs to the installation. */
  readonly frontSocket?: string | undefined
  readonly looksSocket?: string | undefined
  readonly writesSocket?: string | undefined
}

/** The environment variable of each override. */
export const ENVIRONMENT = {
  config: 'VFIOD_CONFIG',
  socket: 'VFIOD_SOCKET',
  sim: 'VFIOD_SIM',
  logLevel: 'VFIOD_LOG_LEVEL',
  looksSocket: 'VFIOD_LOOKS_SOCKET',
  writesSocket: 'VFIOD_WRITES_SOCKET',
  trace: 'VFIOD_TRACE',
  frontSocket: 'VFIOD_FRONT_SOCKET',
} as const satisfies Record<keyof Overrides, string>

/** Read when nothing else is named, and only if it is there. */
export const DEFAULT_FILE = '/etc/vfiod/vfiod.toml'

type Environment = Readonly<Record<string, string | undefined>>

const fromEnvironment = (env: Environment): Overrides => {
  const sim = env[ENVIRONMENT.sim]
  const trace = env[ENVIRONMENT.trace]
  return {
    config: env[ENVIRONMENT.config],
    socket: env[ENVIRONMENT.socket],
    sim: sim === '1' ? true : sim,
    logLevel: env[ENVIRONMENT.logLevel],
    looksSocket: env[ENVIRONMENT.looksSocket],
    writesSocket: env[ENVIRONMENT.writesSocket],
    trace: trace === '1' ? true : trace,
    frontSocket: env[ENVIRONMENT.frontSocket],
  }
}

const readTable = (file: string, isRequired: boolean): Record<string, unknown> => {
  let text: string
  try {
    text = readTrusted(file)
  } catch (error) {
    if (error instanceof ConfigError && error.code === 'ENOENT' && !isRequired) return {}
    throw error
  }
  try {
    return parse(text)
  } catch (error) {
    throw new ConfigError(`Cannot read ${file}: ${(error as Error).message}`)
  }
}

const isOff = (value: string | boolean | undefined): value is undefined | false | '' | '0' =>
  value === undefined || value === false || value === '' || value === '0'

const simTable = (sim: string | boolean | undefined): Record<string, unknown> => {
  if (isOff(sim)) return {}
  return sim === true ? { backend: 'sim' } : { backend: 'sim', machine: resolve(sim) }
}

const traceTable = (trace: string | boolean | undefined): Record<string, unknown> => {
  if (isOff(trace)) return {}
  return { trace: trace === true || trace === 'stderr' ? 'stderr' : resolve(`${trace}`) }
}

const given = (table: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(table).filter(([, value]) => value !== undefined))

/** The configuration in force, or a ConfigError that names what is wrong and where. */
export const loadConfig = (flags: Overrides, env: Environment): Config => {
  const environment = fromEnvironment(env)
  const named = flags.config ?? environment.config
  const file = named ?? DEFAULT_FILE
  const table: Record<string, unknown> = readTable(file, named !== undefined)
  for (const said of [environment, flags]) {
    const { socket, sim, logLevel, trace, frontSocket, looksSocket, writesSocket } = said
    Object.assign(table, simTable(sim), traceTable(trace))
    Object.assign(table, given({ looks_socket: looksSocket || undefined }))
    Object.assign(table, given({ socket: socket && resolve(socket), log_level: logLevel }))
    Object.assign(table, given({ front_socket: frontSocket || undefined }))
    Object.assign(table, given({ writes_socket: writesSocket || undefined }))
  }
  const parsed = configSchema.safeParse(table)
  if (!parsed.success)
    throw new ConfigError(`Cannot use the configuration:\n${z.prettifyError(parsed.error)}`)
  const config = parsed.data
  return { ...config, fd_socket: config.fd_socket ?? join(dirname(config.socket), 'fds.sock') }
}

/** The configuration as the file would say it, every default filled in. */
export const configText = (config: Config): string =>
  stringify({ ...config, socket_mode: config.socket_mode.toString(8).padStart(4, '0') })
