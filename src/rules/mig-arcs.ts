/**
 * Migration v2: the states of a device and the arcs between them (enum vfio_device_mig_state in
 * vfio.h). Arcs are data; a path is the shortest walk along them that obeys one rule.
 *
 *                    PRE_COPY <--> PRE_COPY_P2P --> STOP_COPY      the saving group
 *                       |  ^            |  ^           |  ^
 *                       v  |            v  |           v  |
 *                    RUNNING <-----> RUNNING_P2P <-> STOP <--> RESUMING
 *
 * The rule: a path that both starts and ends in the saving group stays in it, because leaving ends
 * the data transfer session; any other path does not pass through it, because entering starts one.
 */

/** By number: `MIG_STATES[device_state]`. */
export const MIG_STATES = [
  'ERROR',
  'STOP',
  'RUNNING',
  'STOP_COPY',
  'RESUMING',
  'RUNNING_P2P',
  'PRE_COPY',
  'PRE_COPY_P2P',
] as const
export type MigState = (typeof MIG_STATES)[number]

/** What a device can do besides STOP_COPY, which every migratable device has. */
export interface MigFeatures {
  readonly p2p: boolean
  readonly preCopy: boolean
}

/** What an arc does to data transfer sessions. */
export type SessionEffect = 'opens-saving' | 'opens-resuming' | 'ends' | 'none'

interface Arc {
  readonly from: MigState
  readonly to: MigState
  /** The arc stands in for a walk through a P2P state that the device lacks. */
  readonly withoutP2p?: true
}

const ARCS: readonly Arc[] = [
  { from: 'RUNNING', to: 'RUNNING_P2P' },
  { from: 'RUNNING_P2P', to: 'RUNNING' },
  { from: 'RUNNING_P2P', to: 'STOP' },
  { from: 'STOP', to: 'RUNNING_P2P' },
  { from: 'RUNNING', to: 'STOP', withoutP2p: true },
  { from: 'STOP', to: 'RUNNING', withoutP2p: true },

  { from: 'STOP', to: 'STOP_COPY' },
  { from: 'STOP_COPY', to: 'STOP' },
  { from: 'STOP', to: 'RESUMING' },
  { from: 'RESUMING', to: 'STOP' },

  { from: 'RUNNING', to: 'PRE_COPY' },
  { from: 'PRE_COPY', to: 'RUNNING' },
  { from: 'RUNNING_P2P', to: 'PRE_COPY_P2P' },
  { from: 'PRE_COPY_P2P', to: 'RUNNING_P2P' },
  { from: 'PRE_COPY', to: 'PRE_COPY_P2P' },
  { from: 'PRE_COPY_P2P', to: 'PRE_COPY' },
  { from: 'PRE_COPY_P2P', to: 'STOP_COPY' },
  { from: 'PRE_COPY', to: 'STOP_COPY', withoutP2p: true },
]

const SAVING_GROUP: readonly MigState[] = ['PRE_COPY', 'PRE_COPY_P2P', 'STOP_COPY']

/** One data transfer session lasts as long as the device stays in one of these. */
export const isSaving = (state: MigState): boolean => SAVING_GROUP.includes(state)

const NEEDS: Record<MigState, readonly (keyof MigFeatures)[]> = {
  ERROR: [],
  STOP: [],
  RUNNING: [],
  STOP_COPY: [],
  RESUMING: [],
  RUNNING_P2P: ['p2p'],
  PRE_COPY: ['preCopy'],
  PRE_COPY_P2P: ['p2p', 'preCopy'],
}

/** Whether a device with these features has that state at all. */
export const hasState = (state: MigState, features: MigFeatures): boolean =>
  NEEDS[state].every((feature) => features[feature])

/**
 * The states a device goes through after `from` until it is in `to`: each is one arc that the
 * driver takes. Empty when it is there already; null when there is no way, as from and to ERROR.
 */
export const pathOf = (
  from: MigState,
  to: MigState,
  features: MigFeatures,
): readonly MigState[] | null => {
  if (from === 'ERROR' || to === 'ERROR') return null
  if (!hasState(from, features) || !hasState(to, features)) return null
  const staysSaving = isSaving(from) && isSaving(to)
  const mayPass = (state: MigState): boolean =>
    hasState(state, features) && isSaving(state) === staysSaving

  // Breadth first; between the states of the kernel there are never two shortest ways.
  const paths = new Map<MigState, readonly MigState[]>([[from, []]])
  for (const [reached, path] of paths) {
    if (reached === to) return path
    if (reached !== from && !mayPass(reached)) continue
    for (const arc of ARCS) {
      if (arc.from !== reached || paths.has(arc.to)) continue
      if (arc.withoutP2p && features.p2p) continue
      if (arc.to === to || mayPass(arc.to)) paths.set(arc.to, [...path, arc.to])
    }
  }
  return null
}

/** What one arc of a path does; a step inside the saving group keeps the session: 'none'. */
export const sessionEffect = (from: MigState, to: MigState): SessionEffect => {
  if (from === to) return 'none'
  if (to === 'RESUMING') return 'opens-resuming'
  if (isSaving(to)) return isSaving(from) ? 'none' : 'opens-saving'
  return isSaving(from) || from === 'RESUMING' ? 'ends' : 'none'
}
