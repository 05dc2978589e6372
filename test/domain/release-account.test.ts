// Releasing what a client had takes as long as the kernel likes: on the account of the client.

import { expect, test } from 'vitest'
import { currentAccount } from '../../src/os/thread-shares.ts'
import { EDU, readySpace, world } from './machine.ts'
import { alice } from './people.ts'

test('files of a client that is gone are closed on its account', async () => {
  const closed: (string | undefined)[] = []
  const at = world(
    {},
    {
      over: (kernel) =>
        new Proxy(kernel, {
          get: (target, name) => {
            if (name === 'close') closed.push(currentAccount())
            const value = Reflect.get(target, name, target)
            return typeof value === 'function' ? value.bind(target) : value
          },
        }),
    },
  )
  await readySpace(at, alice)
  await at.domain.devices.open(alice, 'space', EDU)
  closed.length = 0

  await at.domain.releaseClient(alice, 'it has exited')

  // A device, a group and a container.
  expect(closed).toEqual([alice.account, alice.account, alice.account])
})
