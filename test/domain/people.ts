/** Clients for tests of the domain: each is another process. */

import { type Client, PROCESS_LEASE } from '../../src/domain/identity/clients.ts'
import type { Grant } from '../../src/rules/policy.ts'

/** What root has without a policy file. */
export const EVERYTHING: Grant = { role: 'admin', devices: ['*'], addsGroups: true, quota: {} }

export const person = (name: string, pid = 100, grant: Partial<Grant> = {}): Client => ({
  id: name,
  origin: { kind: 'process', pid, uid: 1000, gid: 1000, groups: [], command: name },
  identity: `uid of ${name}`,
  account: `uid of ${name}`,
  grant: { ...EVERYTHING, ...grant },
  lease: PROCESS_LEASE,
})

export const alice = person('alice', 101)
export const bob = person('bob', 102)
