/** Clients for tests of the domain: each is another process. */

import type { Client } from '../../src/domain/clients.ts'

export const person = (name: string, pid = 100): Client => ({
  id: name,
  pid,
  uid: 1000,
  gid: 1000,
  command: name,
  isCurrent: () => true,
})

export const alice = person('alice', 101)
export const bob = person('bob', 102)
