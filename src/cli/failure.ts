/**
 * How a command fails: one line that says what was tried and found, then the blockers and
 * what to do about it, in an aligned column; with --json the same as one object. On stderr.
 */
import { getSystemErrorMap } from 'node:util'
import { CommanderError } from 'commander'
import { type Details, REASONS, type Reason } from '../base/error.ts'
import { RpcError } from '../client/rpc-error.ts'
import { spellOut } from './output.ts'
import { indented } from './table.ts'

/** An error of vfioctl itself: a file that it cannot read, a region name that does not exist. */
export class CliError extends Error {
  override readonly name = 'CliError'
  /** What else there is to say. */
  readonly note: string
  readonly exitCode: number

  constructor(
    message: string,
    options: { readonly note?: string; readonly exitCode?: number; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.note = options.note ?? ''
    this.exitCode = options.exitCode ?? EXIT_FAILED
  }
}

/** A file that does not open: `Cannot read "x": no such file or directory`. */
export const fileError = (verb: 'read' | 'write', path: string, error: unknown): CliError => {
  const { errno, message } = error as NodeJS.ErrnoException
  const [, why = message] = (errno && getSystemErrorMap().get(errno)) || []
  return new CliError(`Cannot ${verb} "${path}": ${why}`)
}

/** Stopped by Ctrl-C before the end: as the shell says of a process that SIGINT ended. */
const EXIT_INTERRUPTED = 130
export const EXIT_USAGE = 2
/** The daemon did not answer in time: as timeout(1) says of a process that it ended. */
export const EXIT_NO_ANSWER = 124
const EXIT_FAILED = 1

/** Arguments that contradict each other: what commander cannot see by itself. */
export const usageError = (message: string): CommanderError =>
  new CommanderError(EXIT_USAGE, 'vfioctl.usage', message)

/** A label and what it labels: blocked by, fix, limit, to do, reason. */
type Line = readonly [string, string]

export interface Failure {
  readonly exitCode: number
  readonly message: string
  readonly lines: readonly Line[]
  readonly json: Readonly<Record<string, unknown>>
}

const adviceOn = (reason: string): string =>
  Object.hasOwn(REASONS, reason) ? REASONS[reason as Reason] : ''

const detailLines = (details: Details): Line[] => {
  const { blockers = [], quota, resource, field, holder, deviceState, retryAfterMs } = details
  const lines: Line[] = blockers.map(({ subject, found }) => ['blocked by', `${subject}: ${found}`])
  for (const fix of new Set(blockers.map((blocker) => blocker.fix))) lines.push(['fix', fix])
  if (quota !== undefined) {
    lines.push(['limit', `${quota.limit}: ${quota.max}`])
    lines.push(['in use', `${quota.current}, and ${quota.needed} more needed`])
  }
  if (resource?.owner !== undefined) lines.push(['owner', resource.owner])
  if (holder?.space !== undefined) lines.push(['space', holder.space])
  if (holder?.client !== undefined) lines.push(['client', holder.client])
  if (deviceState !== undefined) lines.push(['state', deviceState])
  if (field !== undefined) lines.push(['field', field])
  if (retryAfterMs !== undefined) lines.push(['retry', `in ${retryAfterMs} ms`])
  return lines
}

const kernelText = ({ op, errno }: Details): string => {
  if (op === undefined) return ''
  return errno === undefined ? ` (${op})` : ` (${op}: ${errno})`
}

/** The errno has several causes, and the daemon could not find out which it is. */
const isUndecided = ({ causes = [] }: Details): boolean => causes.length > 1

const FIND_OUT = 'Find out which of the causes in the message it is; docs/refusals.md has them all.'

const adviceToReach = (place: string, cause: string): string => {
  if (!place.startsWith('/') && place.includes(':'))
    return 'See that the daemon listens there and that each side has a certificate the other trusts.'
  return cause.includes('EACCES')
    ? 'Ask for access to the socket; socket_group of the daemon says who has it.'
    : 'Start vfiod, or name its socket with --socket or $VFIOD_SOCKET.'
}

const unreachable = (error: RpcError, place: string): Failure => {
  const { reason, status, method, details } = error
  const cause = causeText(error.message)
  const message = `Cannot reach the daemon on ${place}: ${cause}`
  const advice = adviceToReach(place, cause)
  return {
    exitCode: EXIT_FAILED,
    message,
    lines: [['to do', advice]],
    json: { message, reason, status, method, advice, details },
  }
}

const exitCodeOf = ({ status, reason }: RpcError): number => {
  if (status === 'CANCELLED') return EXIT_INTERRUPTED
  return status === 'DEADLINE_EXCEEDED' && reason === '' ? EXIT_NO_ANSWER : EXIT_FAILED
}

const refusedCall = (error: RpcError, place: string): Failure => {
  const { message, reason, status, method, details } = error
  if (reason === '' && status === 'UNAVAILABLE') return unreachable(error, place)
  const advice = isUndecided(details) ? FIND_OUT : adviceOn(reason)
  const lines = detailLines(details)
  if (advice !== '') lines.push(['to do', advice])
  if (reason !== '') lines.push(['reason', `${reason}${kernelText(details)}`])
  return {
    exitCode: exitCodeOf(error),
    message,
    lines,
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

const own = (error: CliError, place: string): Failure => {
  const { message, note, cause } = error
  const refused = cause instanceof RpcError ? refusedCall(cause, place) : undefined
  const lines: Line[] = [...(refused?.lines ?? [])]
  if (note !== '') lines.push(['note', note])
  return {
    exitCode: refused?.exitCode ?? error.exitCode,
    message,
    lines,
    json: { ...refused?.json, message, note },
  }
}

/** What to say of an error; undefined for one that is a mistake of vfioctl. */
export const failureOf = (error: unknown, place: string): Failure | undefined => {
  if (error instanceof RpcError) return refusedCall(error, place)
  if (error instanceof CliError) return own(error, place)
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
