/**
 * An ioctl as a trace shows it: the request by its C name, its argument by its struct, and what the
 * kernel left in it. Unknown requests are numbers. Everything here is pure.
 */

import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_report,
} from '../abi/dma-logging.ts'
import * as features from '../abi/feature.ts'
import type { Ioctl } from '../abi/ioctl.ts'
import { dataView, type Fields, Struct } from '../abi/layout.ts'
import {
  vfio_device_feature_mig_data_size,
  vfio_device_feature_mig_state,
  vfio_device_feature_migration,
} from '../abi/mig-v2.ts'
import { REQUESTS } from '../abi/requests.ts'
import { errnoName } from '../base/errno.ts'
import { type FdKind, hex } from '../base/units.ts'
import type { IoctlArg } from './port.ts'

/** The kind of an fd, as far as it is known, and its number: `container 12`, `fd 12`. */
export type NameOf = (fd: number) => string

/** One request that was made. */
export interface SeenRequest {
  /** `VFIO_SET_IOMMU, 3` */
  readonly text: string
  /** Fds that the answer brought, each with its kind. */
  opened(answer: number): readonly (readonly [fd: number, kind: FdKind])[]
  /** `0 {size=0x1000}`: the answer, and the fields that the kernel changed. */
  said(answer: number, nameOf: NameOf): string
}

/** Longer arguments (bitmaps, data of interrupts) are not kept for comparing. */
const KEPT_MAX = 4096

/** -errno by its name, anything else as a number. */
export const saidOf = (answer: number): string =>
  answer < 0 ? `-${errnoName(-answer)}` : `${answer}`

/**
 * What a number means depends on its file. An iommufd takes the requests of a container, and
 * /dev/vfio/vfio of some kernels is an iommufd.
 */
const FALLBACK: Partial<Record<FdKind, FdKind>> = { container: 'iommufd', iommufd: 'container' }

const requestOf = (kind: FdKind | undefined, number: number): Ioctl<FdKind> | undefined => {
  const alike = REQUESTS.filter((request) => request.number === number)
  if (kind === undefined) return alike.length === 1 ? alike[0] : undefined
  return alike.find(({ on }) => on === kind) ?? alike.find(({ on }) => on === FALLBACK[kind])
}

const PAYLOADS: ReadonlyMap<number, Struct<Fields>> = new Map<number, Struct<Fields>>([
  [features.VFIO_DEVICE_FEATURE_MIGRATION, vfio_device_feature_migration],
  [features.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, vfio_device_feature_mig_state],
  [
    features.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
    features.vfio_device_low_power_entry_with_wakeup,
  ],
  [features.VFIO_DEVICE_FEATURE_DMA_LOGGING_START, vfio_device_feature_dma_logging_control],
  [features.VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, vfio_device_feature_dma_logging_report],
  [features.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, vfio_device_feature_mig_data_size],
  [features.VFIO_DEVICE_FEATURE_BUS_MASTER, features.vfio_device_feature_bus_master],
  [features.VFIO_DEVICE_FEATURE_DMA_BUF, features.vfio_device_feature_dma_buf],
])

/** Constants of feature.ts that are flags or the mask, and not the number of a feature. */
const FEATURE_FLAGS = {
  GET: features.VFIO_DEVICE_FEATURE_GET,
  SET: features.VFIO_DEVICE_FEATURE_SET,
  PROBE: features.VFIO_DEVICE_FEATURE_PROBE,
}

const FEATURE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(features).flatMap(([name, value]) =>
    name.startsWith('VFIO_DEVICE_FEATURE_') &&
    !/_(MASK|GET|SET|PROBE|CLEAR_MASTER|SET_MASTER)$/.test(name) &&
    typeof value === 'number'
      ? [[value, name.slice('VFIO_DEVICE_FEATURE_'.length)] as const]
      : [],
  ),
)

type Shown = Readonly<Record<string, string>>

/** The fields of a struct. Its size in front and what is reserved are left out where they are as
 * they should be. */
const fieldsOf = (codec: Struct<Fields>, bytes: Uint8Array, length: number): Shown => {
  const shown: Record<string, string> = {}
  const values = Object.entries(codec.decode(bytes))
  for (const [index, [name, value]] of values.entries()) {
    const isSize = index === 0 && (name === 'argsz' || name === 'size') && Number(value) === length
    if (isSize || (/reserved|^pad/.test(name) && Number(value) === 0)) continue
    shown[name] = typeof value === 'bigint' ? hex(value) : `${value}`
  }
  return shown
}

const braced = (fields: Shown): string =>
  `{${Object.entries(fields)
    .map(([name, text]) => `${name}=${text}`)
    .join(', ')}}`

/** The pieces of an argument: each a struct and where it begins. */
interface Piece {
  readonly codec: Struct<Fields>
  readonly at: number
}

const piecesOf = (request: Ioctl<FdKind>, arg: Uint8Array): readonly Piece[] => {
  if (!(request.argument instanceof Struct) || arg.length < request.argument.size) return []
  const envelope: Piece = { codec: request.argument, at: 0 }
  if (request.cName !== features.VFIO_DEVICE_FEATURE.cName) return [envelope]
  const { flags } = features.vfio_device_feature.decode(arg)
  const payload = PAYLOADS.get(flags & features.VFIO_DEVICE_FEATURE_MASK)
  const at = features.vfio_device_feature.size
  return payload !== undefined && arg.length >= at + payload.size
    ? [envelope, { codec: payload, at }]
    : [envelope]
}

const shownOf = (pieces: readonly Piece[], arg: Uint8Array): Shown[] =>
  pieces.map(({ codec, at }) => {
    const fields = fieldsOf(codec, arg.subarray(at), arg.length)
    return codec === features.vfio_device_feature
      ? { ...fields, flags: featureFlags(Number(fields.flags)) }
      : fields
  })

/** `GET|MIGRATION` */
const featureFlags = (flags: number): string => {
  const number = flags & features.VFIO_DEVICE_FEATURE_MASK
  const set = Object.entries(FEATURE_FLAGS).flatMap(([name, bit]) =>
    (flags & bit) === 0 ? [] : [name],
  )
  return [...set, FEATURE_NAMES.get(number) ?? `${number}`].join('|')
}

/** The bytes after the last piece, of which only the number is shown. */
const restOf = (pieces: readonly Piece[], arg: Uint8Array): string => {
  const last = pieces.at(-1)
  const rest = arg.length - (last === undefined ? 0 : last.at + last.codec.size)
  return rest > 0 ? ` + ${rest} bytes` : ''
}

/** An argument without a struct: a number by value, or how long it is. */
const plain = (arg: IoctlArg): string => {
  if (arg === undefined) return ''
  return arg instanceof Uint8Array ? `, ${arg.length} bytes` : `, ${arg}`
}

/** The name of a device; the token of its physical function is a secret. */
const nameIn = (arg: Uint8Array): string =>
  new TextDecoder()
    .decode(arg)
    .replace(/\0.*$/s, '')
    .replace(/vf_token=\S+/, 'vf_token=...')

const textOf = (request: Ioctl<FdKind>, arg: IoctlArg, nameOf: NameOf): string => {
  if (!(arg instanceof Uint8Array)) return plain(arg)
  if (request.argument === 'fd' && arg.length >= 4)
    return `, ${nameOf(dataView(arg).getInt32(0, true))}`
  if (request.argument === 'name') return `, ${JSON.stringify(nameIn(arg))}`
  const pieces = piecesOf(request, arg)
  if (pieces.length === 0) return plain(arg)
  return `, ${shownOf(pieces, arg).map(braced).join(' ')}${restOf(pieces, arg)}`
}

/** Looks at a request before it is made: the kernel may change the argument. */
export const seeRequest = (
  kind: FdKind | undefined,
  number: number,
  arg: IoctlArg,
  nameOf: NameOf,
): SeenRequest => {
  const request = requestOf(kind, number)
  if (request === undefined)
    return { text: `${hex(number)}${plain(arg)}`, opened: () => [], said: saidOf }
  const fdKind = FD_KINDS.find((known) => known === request.answer)
  const isKept = arg instanceof Uint8Array && arg.length <= KEPT_MAX
  const pieces = isKept ? piecesOf(request, arg) : []
  const before = isKept ? shownOf(pieces, arg) : []
  const dataFdBefore = before.at(-1)?.data_fd
  return {
    text: `${request.cName}${textOf(request, arg, nameOf)}`,
    opened: (answer) => [
      ...(fdKind !== undefined && answer >= 0 ? [[answer, fdKind] as const] : []),
      ...(answer < 0 || !isKept ? [] : dataFdsIn(pieces, arg, dataFdBefore)),
    ],
    said: (answer, nameOfNow) => {
      const said = fdKind !== undefined && answer >= 0 ? nameOfNow(answer) : saidOf(answer)
      const changes = isKept ? changesOf(before, shownOf(pieces, arg)) : ''
      return `${said}${changes}`
    },
  }
}

const FD_KINDS: readonly FdKind[] = ['container', 'group', 'device', 'dataFd', 'iommufd']

/** VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE answers the fd of a session in its payload. */
const dataFdsIn = (
  pieces: readonly Piece[],
  arg: Uint8Array,
  before: string | undefined,
): readonly (readonly [number, FdKind])[] =>
  pieces
    .filter(({ codec }) => codec === vfio_device_feature_mig_state)
    .map(({ at }) => vfio_device_feature_mig_state.decode(arg.subarray(at)).data_fd)
    .filter((fd) => fd >= 0 && `${fd}` !== before)
    .map((fd) => [fd, 'dataFd'] as const)

/** ` {size=0x1000}`: fields that have another value than before, or nothing. */
const changesOf = (before: readonly Shown[], after: readonly Shown[]): string => {
  const changed = after.flatMap((fields, index) =>
    Object.entries(fields).filter(([name, text]) => before[index]?.[name] !== text),
  )
  return changed.length === 0 ? '' : ` ${braced(Object.fromEntries(changed))}`
}
