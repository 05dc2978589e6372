/**
 * Keeps the native half of an HTTP/2 session until those of its streams are gone. Node aborts the
 * process when it collects a session while a stream of it still holds header fields, as one does whose
 * connection broke within a header block (`~Http2Session`: current_nghttp2_memory_ is not 0). Both become
 * garbage at once, and the order in which Node destroys them is not defined.
 */

/** A session or stream of node:http2. */
export interface NativeOwner {
  once(event: 'close', listener: () => void): unknown
}

/** Sessions that are open, or were in this turn of the event loop: streams are removed at its end. */
const open = new Set<object>()

/** Sessions by the streams that they are kept for: a value is released after its key was collected. */
const behind = new FinalizationRegistry<object>(() => {})

/** The native half, by the name that Node gives to its key; undefined once it is destroyed. */
export const nativeOf = (owner: NativeOwner): object | undefined => {
  const key = Object.getOwnPropertySymbols(owner).find(
    ({ description }) => description === 'kHandle',
  )
  return key && (owner as unknown as Record<symbol, object | undefined>)[key]
}

/** Keep a new session until it is closed and the native work of that turn is done. */
export const keepOpen = (session: NativeOwner): void => {
  const native = nativeOf(session)
  if (native === undefined) return
  open.add(native)
  // What Node does at the end of a turn it does before this, and it may ask for one turn more.
  const afterTwoTurns = () => setImmediate(() => setImmediate(() => open.delete(native)))
  session.once('close', afterTwoTurns)
}

/** Keep the session of a new stream until the stream has been collected. */
export const keepBehind = (stream: NativeOwner, session: NativeOwner): void => {
  const [native, nativeSession] = [nativeOf(stream), nativeOf(session)]
  if (native !== undefined && nativeSession !== undefined) behind.register(native, nativeSession)
}
