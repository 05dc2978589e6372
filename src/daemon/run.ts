/** The life of the daemon: configure, listen, say so, and end in order. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { Api } from '../api/api.ts'
import type { Administration } from '../api/services/admin.ts'
import type { StartFront } from '../api/transport/running-front.ts'
import { createDomain, type Domain } from '../domain/domain.ts'
import { memoryOfHost } from '../kernel/own-limits.ts'
import { leave } from '../os/leave.ts'
import { tuneCollector, tuneMalloc } from '../os/limits.ts'
import { notify } from '../os/notify.ts'
import { onError } from '../os/poller.ts'
import { feedWatchdog } from '../os/watchdog.ts'
import { createBackend } from './compose.ts'
import { type Config, configText, loadConfig, type Overrides } from './config.ts'
import { ConfigError, EX_CONFIG } from './config-error.ts'
import { canChangeUser, OVERFLOW_UID, startFrontProcess } from './front-process.ts'
import { frontUnits } from './front-unit.ts'
import { hostHelpers } from './host-helpers.ts'
import { createLogging, type Logging } from './logging.ts'
import { PolicyStore } from './policy-file.ts'
import { onReload, reload } from './reload.ts'
import { remoteOptionsOf } from './remote-options.ts'
import { isSupported, OLDEST_NODE } from './runtime.ts'
import { onSignals, shutDown } from './shutdown.ts'
import { socketGid, socketsOf } from './sockets.ts'

/** sysexits.h. */
const EX_SOFTWARE = 70

const version = (): string =>
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version

const flagsOf = (argv: readonly string[]): Overrides =>
  new Command('vfiod')
    .description('Owns VFIO on this host and serves it over gRPC.')
    .version(version(), '--version')
    .option('--config <file>', 'the configuration file')
    .option('--socket <path>', 'the Unix socket that gRPC is served on')
    .option('--sim [machine.toml]', 'serve a simulated machine instead of this host')
    .option('--log-level <level>', 'debug, info, warn or error')
    .option('--trace [file]', 'write every call to the kernel to stderr, or to a file')
    .exitOverride()
    .parse(argv)
    .opts<Overrides>()

/** Runs until it is told to stop; answers the exit code. `frontsOf` says how fronts run. */
export const main = async (
  argv: readonly string[],
  frontsOf: (config: Config) => HowFrontsRun = configuredFronts,
): Promise<number> => {
  try {
    return await runWith(loadConfig(flagsOf(argv), process.env), frontsOf)
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`vfiod: ${error.message}\n`)
    return EX_CONFIG
  }
}

const runWith = async (
  config: Config,
  frontsOf: (config: Config) => HowFrontsRun,
): Promise<number> => {
  // Files and sockets that the daemon makes are its own until it says otherwise.
  process.umask(0o077)
  tuneMalloc()
  tuneCollector()
  const logging = loggingOf(config)
  exitOnMistakes(logging)
  try {
    return await serve(config, logging, frontsOf)
  } catch (error) {
    if (error instanceof ConfigError) throw error
    logging.logger.error({ err: error }, 'cannot serve')
    process.stderr.write(`vfiod: ${error instanceof Error ? error.message : error}\n`)
    return EX_SOFTWARE
  } finally {
    await logging.close()
  }
}

const warnOfRuntime = (log: Logging['logger']): void => {
  const { version: node } = process
  if (isSupported(node)) return
  log.warn(
    { node },
    `this Node is not supported, and VFIOD_NODE is set: use ${OLDEST_NODE} or newer`,
  )
}

const loggingOf = (config: Config): Logging => {
  try {
    return createLogging(config)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError(`Cannot write the audit to ${config.audit}: ${code}`)
  }
}

const serve = async (
  config: Config,
  logging: Logging,
  frontsOf: (config: Config) => HowFrontsRun,
): Promise<number> => {
  const { logger: log } = logging
  let canReload = (_how: () => void): void => {}
  onReload(
    new Promise((resolve) => {
      canReload = resolve
    }),
  )
  const policy = new PolicyStore({
    path: config.policy,
    ownUid: process.geteuid?.() ?? 0,
    socketGid: socketGid(config),
  })
  const remote = remoteOptionsOf(config)
  let stop = (_why: string): void => {}
  const stopped = new Promise<string>((resolve) => {
    stop = resolve
  })
  // From before it is ready: a program that waits for that may stop it in the next moment.
  onSignals(stop, (code) => exitNow(logging, code))
  const helpers = hostHelpers(config, {
    version: version(),
    log: (fields, message) => log.error(fields, message),
  })
  const { kernel, simulator } = await createBackend(config, helpers.over)
  const domain: Domain = createDomain({
    kernel,
    log: (event, fields, level) => {
      log.info({ audit: true, ...fields }, event)
      if (level === 'warn') log.warn(fields, event)
    },
    totalQuota: policy.total,
    memoryBytes: await memoryOfHost(kernel),
  })
  const fronts = frontsOf(config)
  const api = await Api.start({
    startFront: fronts.start,
    ...(helpers.processLooks && { processLooks: helpers.processLooks }),
    domain,
    log,
    grantOf: policy.grantOf,
    administration: administrationOf(config, policy, () => stop('an administrator drained it')),
    ...socketsOf(config),
    ...(remote === undefined ? {} : { remote }),
    ...(simulator === undefined ? {} : { simulator }),
  })
  const { socket, backend, drain_ms: drainMs } = config
  canReload(() => reload({ config, policy, api, logging }))
  const { remotePort: port } = api
  warnOfRuntime(log)
  const about = { version: version(), node: process.version, fronts: fronts.runAs }
  log.info({ socket, backend, ...about, ...(port && { remotePort: port }) }, 'ready')
  notify(`READY=1\nSTATUS=serving ${socket}`)
  process.stdout.write(`vfiod: ready on ${socket}\n`)
  const restWatchdog = feedWatchdog(process.env)

  await shutDown(await stopped, { api, domain, log, drainMs })
  restWatchdog()
  return 0
}

export interface HowFrontsRun {
  /** For the log. */
  readonly runAs: string
  readonly start: StartFront
}

/** By the service manager where its socket is configured, and then in no other way. */
const configuredFronts = ({ front_socket: socket }: Config): HowFrontsRun => {
  if (socket !== undefined) return { runAs: 'units', start: frontUnits(socket) }
  const user = canChangeUser() ? `uid ${OVERFLOW_UID}` : 'this user'
  return { runAs: `own processes as ${user}`, start: startFrontProcess }
}

const administrationOf = (
  config: Config,
  policy: PolicyStore,
  drain: () => void,
): Administration => ({
  configuration: () => configText(config),
  policy: () => policy.text,
  policyStatus: () => policy.status,
  // After the answer has been sent.
  drain: () => void setImmediate(drain),
})

const exitNow = (logging: Logging, code: number): never => {
  logging.flush()
  return leave(code)
}

/**
 * After an uncaught error, the state of the daemon is unknown. It ends: the kernel then
 * resets the devices and releases the memory, and the service manager starts a new one.
 */
const exitOnMistakes = (logging: Logging): void => {
  const end = (error: unknown): never => {
    logging.fatal({ err: error }, 'ending because of a mistake in vfiod')
    return exitNow(logging, EX_SOFTWARE)
  }
  process.on('uncaughtException', end)
  process.on('unhandledRejection', end)
  onError(end)
}
