/** Interrupts that the kernel signals to eventfds of this process, without the daemon in between. */
import { Mailbox } from '../base/mailbox.ts'
import type { VfiodClient } from '../client/client.ts'
import { armEventfds } from '../client/verbs.ts'
import { eventfdCreate, eventfdRead } from '../os/eventfd.ts'
import { sys } from '../os/libc.ts'
import { unwatch, watch } from '../os/poller.ts'
import { CliError } from './failure.ts'

export type IrqReport =
  | { readonly event: 'armed' }
  | { readonly event: 'irq'; readonly irq: { readonly vector: number; readonly count: string } }

/** Arms vectors with an eventfd each, and reports them as WatchIrqs does, until the signal. */
export async function* watchEventfds(
  client: VfiodClient,
  vectors: {
    readonly name: string
    readonly index: number
    readonly start: number
    readonly count: number
  },
  signal: AbortSignal,
): AsyncGenerator<IrqReport, void> {
  const eventfds = Array.from({ length: vectors.count }, () => eventfdCreate())
  const raised = new Mailbox<IrqReport>()
  try {
    if (eventfds.some((fd) => fd < 0))
      throw new CliError(`Cannot make ${vectors.count} eventfds: raise the limit of open files`)
    for (const [n, fd] of eventfds.entries()) {
      watch(fd, () => {
        const count = eventfdRead(fd)
        if (typeof count !== 'bigint') return
        raised.push({
          event: 'irq',
          irq: { vector: vectors.start + n, count: String(count) },
        })
      })
    }
    await armEventfds(client, vectors, eventfds, { signal })
    yield { event: 'armed' }
    yield* raised.read(signal)
  } finally {
    for (const fd of eventfds.filter((each) => each >= 0)) {
      unwatch(fd)
      sys.closeSync(fd)
    }
  }
}
