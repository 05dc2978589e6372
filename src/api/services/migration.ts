/** MigrationService: the states of a device, and the bytes of its sessions. */
import type { Domain } from '../../domain/domain.ts'
import type { SessionTotal, StateView, WriteMessage } from '../../domain/migration/migration.ts'
import type { Session } from '../../domain/migration/session.ts'
import type { MigrationServiceHandlers } from '../../proto/vfiod/v1/MigrationService.ts'
import type { MigrationState } from '../../proto/vfiod/v1/MigrationState.ts'
import type { Session as ProtoSession } from '../../proto/vfiod/v1/Session.ts'
import type { WriteSessionRequest__Output } from '../../proto/vfiod/v1/WriteSessionRequest.ts'
import type { Handlers } from '../call/call.ts'
import { enumName, enumOf, u64 } from './convert.ts'

type State = StateView['state']

const STATE = {
  MIGRATION_STATE_STOP: 'STOP',
  MIGRATION_STATE_RUNNING: 'RUNNING',
  MIGRATION_STATE_STOP_COPY: 'STOP_COPY',
  MIGRATION_STATE_RESUMING: 'RESUMING',
  MIGRATION_STATE_RUNNING_P2P: 'RUNNING_P2P',
  MIGRATION_STATE_PRE_COPY: 'PRE_COPY',
  MIGRATION_STATE_PRE_COPY_P2P: 'PRE_COPY_P2P',
  MIGRATION_STATE_ERROR: 'ERROR',
} as const satisfies Partial<Record<MigrationState, State>>

const stateToProto = (state: State): MigrationState =>
  enumName<keyof typeof STATE, State>(STATE, state)

const sessionToProto = (session: Session | undefined): ProtoSession | null =>
  session === undefined
    ? null
    : { sessionId: session.id, saving: session.isSaving, bytes: String(session.bytes) }

const totalToProto = ({ sessionId, totalBytes }: SessionTotal) => ({
  sessionId,
  totalBytes: String(totalBytes),
})

const viewToProto = ({ state, session }: StateView) => ({
  state: stateToProto(state),
  session: sessionToProto(session),
})

async function* writesOf(
  requests: AsyncIterable<WriteSessionRequest__Output>,
): AsyncGenerator<WriteMessage, void> {
  for await (const { name, sessionId, offset, data } of requests) {
    yield {
      name,
      sessionId: u64('session_id', sessionId),
      offset: u64('offset', offset),
      data,
    }
  }
}

export const migrationHandlers = ({ migration }: Domain): Handlers<MigrationServiceHandlers> => ({
  GetMigrationCapabilities: async ({ name }, { client }) => {
    const { features, states, hasDmaLogging } = await migration.capabilities(client, name)
    return {
      stopCopy: true,
      p2p: features.p2p,
      preCopy: features.preCopy,
      states: states.map(stateToProto),
      dmaLogging: hasDmaLogging,
    }
  },

  GetMigrationState: async ({ name }, { client }) =>
    viewToProto(await migration.state(client, name)),

  SetMigrationState: async ({ name, state, writtenBytes }, { client }) => {
    const wanted = enumOf<State>('state', STATE, state)
    const written = writtenBytes === '0' ? undefined : BigInt(writtenBytes)
    return viewToProto(await migration.setState(client, name, wanted, written))
  },

  EstimateSize: async ({ name }, { client }) => ({
    stopCopyBytes: String(await migration.estimate(client, name)),
  }),

  GetPrecopyInfo: async ({ name }, { client }) => {
    const { initialBytes, dirtyBytes } = await migration.precopyInfo(client, name)
    return { initialBytes: String(initialBytes), dirtyBytes: String(dirtyBytes) }
  },

  ReadSession: async function* ({ name, sessionId, fromOffset }, { client, connection, signal }) {
    const request = {
      name,
      sessionId: u64('session_id', sessionId),
      from: fromOffset === undefined ? undefined : u64('from_offset', fromOffset),
      connection,
    }
    for await (const event of migration.read(client, request, signal)) {
      if (event.kind === 'data') yield event.chunk
      else yield { end: { ...totalToProto(event), complete: event.isComplete } }
    }
  },

  WriteSession: async (requests, { client }) =>
    totalToProto(await migration.write(client, writesOf(requests))),
})
