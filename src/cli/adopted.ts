/**
 * Resources that pass from one command to the next: a command hands over everything it owns, and the
 * next command adopts it by the token.
 */

import { allOf } from '../client/verbs.ts'
import type { AddressSpace__Output as AddressSpace } from '../proto/vfiod/v1/AddressSpace.ts'
import type { CommandSession } from './session.ts'

/** Becomes the owner of what a token is for; answers the address spaces of it. */
export const adopt = async (
  { client, signal }: CommandSession,
  token: string,
): Promise<readonly AddressSpace[]> => {
  await client.ownership.adopt({ token }, { signal })
  const { clientId } = await client.ownership.whoAmI({}, { signal })
  const spaces = await allOf('spaces', (page) => client.addressSpace.listSpaces(page, { signal }))
  return spaces.filter(({ owner }) => owner?.clientId === clientId)
}

/** Offers everything that this process owns, and prints the token. */
export const leave = async (
  { client, output }: CommandSession,
  deadlineMs: number,
): Promise<void> => {
  const offer = await client.ownership.handOver({ deadlineMs })
  output.answer(
    offer,
    () => `\nkept for ${offer.deadlineMs} ms; its next owner presents\n${offer.token}`,
  )
}

/** Works on each address space that a token is for, and leaves them again, also when it fails. */
export const withAdopted = async (
  session: CommandSession,
  { token, keepMs }: { readonly token: string; readonly keepMs: number },
  work: (spaceId: string) => Promise<void>,
): Promise<void> => {
  const spaces = await adopt(session, token)
  try {
    for (const { spaceId } of spaces) await work(spaceId)
  } finally {
    await leave(session, keepMs)
  }
}
