/** A front as the owner has it: the ends of its channels, and its end. */
import type { Channels } from '../../os/channels.ts'

/** A front that was started. */
export interface RunningFront extends Channels {
  /** Memory for large messages, which both have mapped. */
  readonly memory: Buffer
  /** End it at once; it may have ended. */
  kill(): void
}

/** Starts a front; calls back once when it has ended. Throws where none can be started. */
export type StartFront = (onExit: (how: string) => void) => RunningFront
