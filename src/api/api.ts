/**
 * The API, put together over a domain: the gRPC server with every service, the fd channel beside
 * it, and the clients that both know. Started with sockets to make, or with inherited ones.
 */
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { Domain } from '../domain/domain.ts'
import type { Client } from '../domain/identity/clients.ts'
import type { Certificates } from '../link/records.ts'
import { SeqpacketListener } from '../os/fd-passing.ts'
import { ownLooks, type ProcessLooks } from '../os/process-looks.ts'
import type { ServiceName } from '../wire/protos.ts'
import { type CallRules, implementation, type Served, unknownMethod } from './call/call.ts'
import { InFlightCalls } from './call/in-flight.ts'
import { Pipeline } from './call/pipeline.ts'
import { Rates } from './call/rate.ts'
import type { GrantOf, Release } from './identity/connection-peer.ts'
import type { Log } from './identity/log.ts'
import { Peers } from './identity/peers.ts'
import { RemotePeers } from './identity/remote.ts'
import { addressSpaceHandlers } from './services/address-space.ts'
import { type Administration, adminHandlers } from './services/admin.ts'
import { deviceHandlers } from './services/device.ts'
import { dirtyHandlers } from './services/dirty.ts'
import { inventoryHandlers } from './services/inventory.ts'
import { memoryHandlers } from './services/memory.ts'
import { migrationHandlers } from './services/migration.ts'
import { ownershipHandlers } from './services/ownership.ts'
import { RegisterWrites } from './services/register-writes.ts'
import { type Simulator, simulatorHandlers } from './services/simulator.ts'
import { Admission } from './transport/admission.ts'
import { Connections, serverBinder } from './transport/connections.ts'
import { FdChannel, fdChannelBinder } from './transport/fd-channel.ts'
import { RemoteListener, type RemoteOptions } from './transport/remote-listener.ts'
import type { StartFront } from './transport/running-front.ts'
import { placeSocket, removeSocket, type SocketFile } from './transport/socket-file.ts'

/** A socket to make, or one that the service manager made and keeps. */
export type ListenOn = SocketFile | { readonly path: string; readonly inheritedFd: number }

export interface ApiOptions {
  readonly domain: Domain
  readonly log: Log
  readonly socket: ListenOn
  /** The path is told to clients in tickets. */
  readonly fdSocket: ListenOn
  /** What the policy grants an identity at this moment. */
  readonly grantOf: GrantOf
  readonly administration: Administration
  /** Where clients of other hosts are served, if they are. */
  readonly remote?: RemoteOptions
  /** Where the machine is simulated. */
  readonly simulator?: Simulator
  /** How a front is started: a process, or in this one. */
  readonly startFront: StartFront
  /** How the processes of clients are looked at; by this process itself where nothing is said. */
  readonly processLooks?: ProcessLooks
}

export class Api {
  readonly connections: Connections
  readonly #options: ApiOptions
  readonly #inFlight = new InFlightCalls()
  readonly #peers: Peers
  readonly #pipeline: Pipeline
  readonly #admission: Admission
  /** Releases that are under way: the daemon does not end in the middle of one. */
  readonly #releases = new Set<Promise<void>>()
  /** The socket files that this daemon made, and removes; not those of a daemon that runs already. */
  readonly #placed: SocketFile[] = []
  #fdChannel: FdChannel | undefined
  #remotePeers: RemotePeers | undefined
  #remoteListener: RemoteListener | undefined

  private constructor(options: ApiOptions) {
    const { log } = options
    this.#options = options
    const release: Release = (client, why) => this.#released(client, why, 'releaseClient')
    const { grantOf } = options
    const { quotas } = options.domain
    const looks = options.processLooks ?? ownLooks
    this.#peers = new Peers({ release, grantOf, quotas, log, looks })
    this.#admission = new Admission({ quotas, log })
    const pipeline = new Pipeline({ inFlight: this.#inFlight, rates: new Rates(quotas), log })
    this.#pipeline = pipeline
    const rules: CallRules = { peerOf: (name) => this.connections.peerOf(name), pipeline }
    this.connections = new Connections({
      peers: this.#peers,
      admission: this.#admission,
      pipeline,
      served: new Map(this.#servicesOf(rules).map((served) => [served.path, served])),
      unknown: (path) => unknownMethod(rules, path),
      startFront: options.startFront,
      log,
    })
  }

  /** Listens once everything is in place. */
  static async start(options: ApiOptions): Promise<Api> {
    const { domain, log, socket, fdSocket } = options
    const api = new Api(options)
    try {
      api.#fdChannel = new FdChannel(await api.#listenForFds(fdSocket), {
        peers: api.#peers,
        fronts: api.connections.fronts,
        disposal: api.connections.disposal,
        admission: api.#admission,
        pipeline: api.#pipeline,
        purposeOf: (client, ticket) => domain.tickets.purposeOf(client, ticket),
        redeem: (client, ticket, fds) => domain.tickets.redeem(client, ticket, fds),
        log,
      })
      await api.#listen(socket)
      if (options.remote !== undefined) await api.#listenForRemote(options.remote)
    } catch (error) {
      await api.close()
      throw error
    }
    return api
  }

  /** Takes no new connections and no new calls, and waits for those that are under way. */
  async drain(graceMs: number): Promise<void> {
    this.connections.stopAccepting()
    this.#fdChannel?.stopAccepting()
    this.#remoteListener?.close()
    this.connections.fronts.notServing()
    this.#inFlight.drain()
    await Promise.race([this.#inFlight.idle(), delay(graceMs, undefined, { ref: false })])
    this.#inFlight.abortAll()
  }

  /** Closes every connection and removes the sockets. Releases nothing: that is the domain's. */
  async close(): Promise<void> {
    this.#fdChannel?.stopAccepting()
    await this.connections.close()
    this.#peers.close()
    this.#remotePeers?.close()
    for (const file of this.#placed) removeSocket(file)
    await Promise.all(this.#releases)
  }

  #servicesOf(rules: CallRules): Served[] {
    const { domain, fdSocket, log, administration, simulator } = this.#options
    const of = (service: ServiceName, handlers: object) =>
      implementation(rules, service, handlers as never)
    const clients = () => [...this.#peers.clients(), ...(this.#remotePeers?.clients() ?? [])]
    return [
      ...of('inventory', inventoryHandlers(domain)),
      ...of('memory', memoryHandlers(domain, fdSocket.path)),
      ...of('addressSpace', addressSpaceHandlers(domain)),
      ...of('device', deviceHandlers(domain, fdSocket.path, new RegisterWrites(domain.state, log))),
      ...of('dirty', dirtyHandlers(domain)),
      ...of('migration', migrationHandlers(domain)),
      ...of('ownership', ownershipHandlers(domain)),
      ...of('admin', adminHandlers({ domain, administration, clients })),
      ...(simulator === undefined ? [] : of('simulator', simulatorHandlers(simulator))),
    ]
  }

  #released(client: Client, why: string, how: 'releaseClient' | 'expireLease'): Promise<void> {
    const release = this.#releaseTwice(client, why, how).catch((error: unknown) => {
      this.#options.log.error({ client: client.id, err: error }, 'client not released')
    })
    this.#releases.add(release)
    return release.finally(() => this.#releases.delete(release))
  }

  /** A call of the client may be under way and create something after the first time. */
  async #releaseTwice(
    client: Client,
    why: string,
    how: 'releaseClient' | 'expireLease',
  ): Promise<void> {
    const { domain } = this.#options
    this.#inFlight.abortClient(client, why)
    await domain[how](client, why)
    await this.#inFlight.idle(client)
    await domain.releaseClient(client, why)
  }

  /** Use new certificates; see RemoteListener for the connections that there are. */
  setCertificates(certificates: Certificates): void {
    this.#remoteListener?.setCertificates(certificates)
  }

  /** The port that remote clients are served on: the kernel chose one where 0 was configured. */
  get remotePort(): number | undefined {
    return this.#remoteListener?.port
  }

  async #listenForRemote(remote: RemoteOptions): Promise<void> {
    const { grantOf, log } = this.#options
    const release: Release = (client, why) => this.#released(client, why, 'expireLease')
    const peers = new RemotePeers({
      grantOf,
      leaseMs: remote.leaseMs,
      release,
      appeared: (client) => this.#options.domain.clientReturned(client),
    })
    this.#remotePeers = peers
    const { connections } = this
    const peerAt = (name: string) => peers.at(name)
    const parts = { connections, admission: this.#admission, peerAt, log }
    this.#remoteListener = new RemoteListener(remote, parts)
    await this.#remoteListener.listen()
  }

  async #listenForFds(on: ListenOn): Promise<SeqpacketListener> {
    if ('inheritedFd' in on) return new SeqpacketListener(on.inheritedFd)
    const listener = await placeSocket(on, fdChannelBinder)
    this.#placed.push(on)
    return listener
  }

  async #listen(on: ListenOn): Promise<void> {
    const { listening } = this.connections
    if ('inheritedFd' in on) {
      listening.listen({ fd: on.inheritedFd })
      await once(listening, 'listening')
    } else {
      await placeSocket(on, serverBinder(listening))
      this.#placed.push(on)
    }
    listening.on('error', (error) =>
      this.#options.log.error({ refusal: error.message }, 'cannot accept a connection'),
    )
  }
}
