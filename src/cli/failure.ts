/**
 * How a command fails: one line that says what was tried and found, then what is in the way and
 * what to do about it, in an aligned column; with --json the same as one object. On stderr.
 */
import { CommanderError } from 'commander'
import { type Details, REASONS, type Reason } from '../base/error.ts'
import { RpcError } from '../client/rpc-error.ts'
import { spellOut } from './output.ts'
import { indented } from './table.ts'

/** What vfioctl itself has to say no to: a file it cannot read, a region name nobody knows. */
export class CliError extends Error {
  override readonly name = 'CliError'
  /** What to do. */
  readonly advice: string

  constructor(message: string, advice = '', cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.advice = advice
  }
}

/** A file that does not open: `Cannot read "x": no such file or directory`. */
export const fileError = (verb: 'read' | 'write', path: string, error: unknown): CliError => {
  const why = /^[A-Z0-9]+: ([^,]+)/.exec((error as Error).message)?.[1]
  return new CliError(`Cannot ${verb} "${path}": ${why ?? (error as Error).message}`)
}

/** Stopped by Ctrl-C before the end: as the shell says of a process that SIGINT ended. */
export const EXIT_INTERRUPTED = 130
export const EXIT_USAGE = 2
const EXIT_FAILED = 1

/** Arguments that contradict each other: what commander cannot see by itself. */
export const usageError = (message: string): CommanderError =>
  new CommanderError(EXIT_USAGE, 'vfioctl.usage', message)

export interface Failure {
  readonly exitCode: number
  readonly message: string
  /** Labelled lines: blocked by, fix, limit, to do, reason. */
  readonly lines: readonly (readonly [string, string])[]
  readonly json: Readonly<Record<string, unknown>>
}

const adviceOn = (reason: string): string =>
  Object.hasOwn(REASONS, reason) ? REASONS[reason as Reason] : ''

const detailLines = (details: Details): (readonly [string, string])[] => {
  const { blockers = [], quota, resource, field } = details
  const fixes = new Set(blockers.map(({ fix }) => fix))
  return [
    ...blockers.map(({ subject, found }) => ['blocked by', `${subject}: ${found}`] as const),
    ...Array.from(fixes, (fix) => ['fix', fix] as const),
    ...(quota === undefined
      ? []
      : ([
          ['limit', `${quota.limit}: ${quota.max}`],
          ['in use', `${quota.current}, and ${quota.needed} more needed`],
        ] as const)),
    ...(resource?.owner === undefined ? [] : ([['owner', resource.owner]] as const)),
    ...(field === undefined ? [] : ([['field', field]] as const)),
  ]
}

const kernelText = ({ op, errno }: Details): string => {
  if (op === undefined) return ''
  return errno === undefined ? ` (${op})` : ` (${op}: ${errno})`
}

const refusedCall = (error: RpcError, socket: string): Failure => {
  const { reason, status, method, details } = error
  const isUnreachable = reason === '' && status === 'UNAVAILABLE'
  const message = isUnreachable
    ? `Cannot reach the daemon on ${socket}: ${causeText(error.message)}`
    : error.message
  const advice = isUnreachable
    ? 'Start vfiod, or name its socket with --socket or $VFIOD_SOCKET.'
    : adviceOn(reason)
  return {
    exitCode: EXIT_FAILED,
    message,
    lines: [
      ...detailLines(details),
      ...(advice === '' ? [] : ([['to do', advice]] as const)),
      ...(reason === '' ? [] : ([['reason', `${reason}${kernelText(details)}`]] as const)),
    ],
    json: { message, reason, status, method, advice, details },
  }
}

/** `connect ENOENT /run/x` out of the sentence that grpc-js makes of a failed connection. */
const causeText = (message: string): string =>
  /(connect E[A-Z]+|Connection dropped)/.exec(message)?.[0] ?? message

const usage = (error: CommanderError): Failure => {
  const message = error.message.replace(/^error: /, '')
  return {
    exitCode: EXIT_USAGE,
    message,
    lines: [['to do', 'See vfioctl --help, or --help after a command.']],
    json: { message, reason: 'USAGE' },
  }
}

const own = (error: CliError, socket: string): Failure => {
  const { message, advice, cause } = error
  const refused = cause instanceof RpcError ? refusedCall(cause, socket) : undefined
  return {
    exitCode: EXIT_FAILED,
    message,
    lines: [...(refused?.lines ?? []), ...(advice === '' ? [] : ([['note', advice]] as const))],
    json: { ...refused?.json, message, note: advice },
  }
}

/** What to say of an error; undefined for one that is a mistake of vfioctl. */
export const failureOf = (error: unknown, socket: string): Failure | undefined => {
  if (error instanceof RpcError) return refusedCall(error, socket)
  if (error instanceof CliError) return own(error, socket)
  if (error instanceof CommanderError) return usage(error)
  return undefined
}

const LABEL_WIDTH = 'blocked by'.length

export const failureText = ({ message, lines }: Failure): string =>
  [
    `vfioctl: ${message}`,
    ...lines.map(([label, text]) => indented(`${label.padEnd(LABEL_WIDTH)}  ${text}`)),
  ].join('\n')

export const failureJson = ({ json }: Failure): string =>
  JSON.stringify({ error: json }, spellOut, 2)
