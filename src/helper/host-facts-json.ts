/** Facts about the host as JSON: all but the networks are what JSON has. */

import type { HostFacts, Networks } from '../rules/host-use.ts'

type JsonFacts = Omit<HostFacts, 'networks'> & {
  readonly networks:
    | { readonly unseen: string }
    | {
        readonly addresses: readonly (readonly [string, readonly string[]])[]
        readonly routes: readonly (readonly [string, readonly string[]])[]
      }
}

export const factsToJson = ({ networks, ...facts }: HostFacts): JsonFacts => ({
  ...facts,
  networks:
    'unseen' in networks
      ? networks
      : { addresses: [...networks.addresses], routes: [...networks.routes] },
})

const factsOfJson = ({ networks, ...facts }: JsonFacts): HostFacts => ({
  ...facts,
  networks:
    'unseen' in networks
      ? networks
      : ({
          addresses: new Map(networks.addresses),
          routes: new Map(networks.routes),
        } satisfies Networks),
})

/** As the helper sent them. */
export const readFacts = (value: unknown): HostFacts => factsOfJson(value as JsonFacts)
