/** What a front says of a call that is open: each frame fits the method and the state of the call, or is a lie. */
import { FROM_FRONT, LinkError } from '../../link/frames.ts'
import type { Served } from '../call/call.ts'
import type { LinkCall } from './link-call.ts'

export interface ServedCall {
  readonly call: LinkCall
  readonly served: Served
}

/** Throws LinkError. */
export const takeInCall = ({ call, served }: ServedCall, kind: number, payload: Buffer): void => {
  const { isClientStream, method, serve, path } = served
  if (served.ignoresRest === true && kind !== FROM_FRONT.cancel) return
  if (payload.length > method.policy.maxBytes)
    throw new LinkError(`a request of ${path} has ${payload.length} bytes`)
  switch (kind) {
    case FROM_FRONT.request:
      if (isClientStream || !call.requested(payload))
        throw new LinkError(`a call of ${path} has two requests`)
      serve(call)
      break
    case FROM_FRONT.message:
      if (!isClientStream || !call.received(payload))
        throw new LinkError('a message came that was not asked for')
      break
    case FROM_FRONT.end:
      call.end()
      break
    case FROM_FRONT.cancel:
      call.cancel()
      break
    case FROM_FRONT.taken:
      if (!call.taken()) throw new LinkError('a message was taken that was not sent')
      break
  }
}
