/** A call as it reaches the owner: messages in bytes, whatever they came over. */
import type { VfiodError } from '../../base/error.ts'

export interface IncomingCall {
  /** Names the connection that it came on. */
  readonly connection: string
  /** The one request, of a method whose client sends no stream. */
  readonly request: Buffer
  /** The requests of a client stream, as they come; ends with it, and when the signal is aborted. */
  requests(signal: AbortSignal): AsyncIterable<Buffer>
  /** Called once, when the client no longer wants an answer: it cancelled, its deadline passed, it is gone. */
  onCancelled(listener: () => void): void
  /** The one response, which ends the call. */
  reply(response: Buffer): void
  /**
   * One message of a server stream. Resolves when its bytes may be used again and the client is not
   * far behind; `taken` is called when the client has taken it.
   */
  send(message: Buffer, taken: () => void): Promise<void>
  /** The server stream ends well. */
  done(): void
  refuse(error: VfiodError): void
}
