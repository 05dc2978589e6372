/**
 * Looks of which a helper makes the part that needs rights. The helper keeps nothing: a pin is held here, by
 * the image and by a file of the address space that the helper opened, which any process may read. So a
 * helper that is started anew changes no answer.
 */

import { VfiodError } from '../base/error.ts'
import { Lane } from '../base/lane.ts'
import type { Holder, HostLooks } from '../kernel/host-looks.ts'
import { sys } from '../os/libc.ts'
import { hasUser, type MmFinding } from '../os/mm.ts'
import type { LookedAt, ProcessLooks, ProcessPin } from '../os/process-looks.ts'
import { closeAll } from '../os/unix-socket.ts'
import type { HostFacts } from '../rules/host-use.ts'
import { answered, type HelperLink } from './helper-link.ts'
import { readFacts } from './host-facts-json.ts'
import { FUNCTIONS_MAX, type LookRequest } from './requests.ts'

/** Milliseconds for a look at a process, and for one at the host. */
const PROCESS_MS = 10_000
const HOST_MS = 60_000

class PinByHelper implements ProcessPin {
  readonly image: string
  readonly #link: HelperLink
  /** Its own: the caller may close the one that it gave. */
  readonly #pidfd: number
  readonly #pagemap: number | undefined
  #isClosed = false

  constructor(
    link: HelperLink,
    parts: { readonly image: string; readonly pidfd: number; readonly pagemap: number | undefined },
  ) {
    this.#link = link
    this.image = parts.image
    this.#pidfd = parts.pidfd
    this.#pagemap = parts.pagemap
  }

  async look(): Promise<MmFinding> {
    if (this.#isClosed) return 'gone'
    if (this.#pagemap !== undefined) {
      const isUsed = hasUser(this.#pagemap)
      if (isUsed !== true) return isUsed === false ? 'gone' : isUsed
    }
    const fds = () => (this.#isClosed ? undefined : [this.#pidfd])
    const answer = await notChecked(this.#link.ask({ look: 'image' }, { ms: PROCESS_MS, fds }))
    const found = answered(answer)
    if (typeof found === 'number') return found
    return found.value === this.image ? 'current' : 'gone'
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    void closeAll([this.#pidfd, ...(this.#pagemap === undefined ? [] : [this.#pagemap])])
  }
}

export const processLooksBy = (link: HelperLink): ProcessLooks => ({
  get hasPtrace() {
    return link.hasPtrace
  },
  pin: async (process: LookedAt) => {
    const pidfd = sys.dup(process.pidfd)
    if (pidfd < 0) return pidfd
    try {
      const asked = link.ask({ look: 'pin' }, { ms: PROCESS_MS, fds: () => [pidfd] })
      const answer = await notChecked(asked)
      const found = answered(answer)
      const [pagemap, ...others] = answer.fds
      void closeAll(others)
      if (typeof found !== 'number')
        return new PinByHelper(link, { image: String(found.value), pidfd, pagemap })
      void closeAll([pidfd])
      return found
    } catch (error) {
      void closeAll([pidfd])
      throw error
    }
  },
  sameMm: async (one, other) => {
    const fds = () => [one.pidfd, other.pidfd]
    const asked = link.ask({ look: 'same-mm' }, { ms: PROCESS_MS, fds })
    const found = answered(await notChecked(asked))
    return typeof found !== 'number' && typeof found.value === 'boolean' ? found.value : undefined
  },
})

export const hostLooksBy = (link: HelperLink): HostLooks => {
  // One at a time: they take long, and clients ask for them.
  const lane = new Lane()
  const look = (request: LookRequest): Promise<unknown> =>
    lane.run(async () => {
      const found = answered(await link.ask(request, { ms: HOST_MS }))
      if (typeof found === 'number') throw noLook(found)
      return found.value
    })
  const factsOf = async (functions: readonly string[]): Promise<HostFacts> =>
    readFacts(await look({ look: 'host-facts', functions }))
  return {
    vfioHolders: async () => (await look({ look: 'vfio-holders' })) as Holder[],
    hostFacts: async (functions) => {
      let facts = await factsOf(functions.slice(0, FUNCTIONS_MAX))
      for (let at = FUNCTIONS_MAX; at < functions.length; at += FUNCTIONS_MAX)
        facts = joined(facts, await factsOf(functions.slice(at, at + FUNCTIONS_MAX)))
      return facts
    },
  }
}

/** Facts that were asked about some functions, and about others. */
const joined = (one: HostFacts, other: HostFacts): HostFacts => ({
  ...other,
  bootConsole: one.bootConsole ?? other.bootConsole,
  hidden: [...one.hidden, ...other.hidden],
  openNodes: [...one.openNodes, ...other.openNodes],
})

/** Of a process it is said as what it means for a caller. */
const notChecked = <T>(asked: Promise<T>): Promise<T> =>
  asked.catch((error: unknown) => {
    if (!(error instanceof VfiodError)) throw error
    const why = error.message.slice(error.message.indexOf('Cannot ') + 'Cannot '.length)
    throw new VfiodError(
      'PEER_NOT_CHECKED',
      `Cannot check the calling process: the daemon could not ${why}`,
      error.details,
    )
  })

const noLook = (errno: number): VfiodError =>
  new VfiodError('HELPER_UNAVAILABLE', `Cannot look at the host: the helper answered ${errno}`)
