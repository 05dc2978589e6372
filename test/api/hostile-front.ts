/** A front that was taken over: it says to the owner what the test has it say. */
import { FROM_OWNER, type Frame, FrameReader, header } from '../../src/link/frames.ts'
import { type ChannelFds, type Channels, channelsOf } from '../../src/os/channels.ts'

export class HostileFront {
  readonly channels: Channels
  readonly heard: Frame[] = []
  isKilled = false

  constructor(fds: ChannelFds) {
    this.channels = channelsOf(fds)
    const { incoming, outgoing } = this.channels
    for (const pipe of [incoming, outgoing]) pipe.on('error', () => undefined)
    const reader = new FrameReader(FROM_OWNER, (frame) => void this.heard.push(frame))
    incoming.on('data', (bytes) => reader.push(bytes))
  }

  say(kind: number, connection: number, call: number, payload: Buffer = Buffer.alloc(0)): void {
    this.channels.outgoing.write(
      Buffer.concat([header(kind as never, { connection, call }, payload.length), payload]),
    )
  }

  /** The number of the connection that it was given; its socket is kept. */
  async given(): Promise<{ readonly connection: number; readonly fd: number }> {
    const packet = await this.channels.packets.receive()
    if (typeof packet === 'number') throw new Error(`no connection: ${packet}`)
    const { connection } = JSON.parse(Buffer.from(packet.bytes).toString())
    return { connection, fd: packet.fds[0] as number }
  }

  end(): void {
    this.isKilled = true
    this.channels.incoming.destroy()
    this.channels.outgoing.destroy()
    this.channels.packets.close()
    this.channels.uplink.close()
  }
}
