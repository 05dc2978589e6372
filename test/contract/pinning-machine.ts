/** A machine with mediated devices that pin what they are told to, and driving one. */

import {
  PINNING_COMMAND,
  PINNING_REG,
  PINNING_WINDOW,
} from '../../src/backends/sim/devices/pinning-device.ts'
import { defaultMachine } from '../../src/backends/sim/spec/default-machine.ts'
import type { MachineSpec } from '../../src/backends/sim/spec/machine-spec.ts'
import type { Kernel } from '../../src/kernel/port.ts'
import { must, type Said, said } from './answers.ts'

export const PINNER = '5f1f9c8e-0000-4000-8000-000000000001'
export const OTHER_PINNER = '5f1f9c8e-0000-4000-8000-000000000002'

export const pinningMachine: MachineSpec = {
  ...defaultMachine,
  mdevParents: [
    ...defaultMachine.mdevParents,
    {
      name: 'pins',
      kind: 'pinning',
      types: [{ id: 'pins-1', name: 'One', ports: 1 }],
      poolPorts: 4,
    },
  ],
  mdevs: [PINNER, OTHER_PINNER].map((uuid) => ({ uuid, parent: 'pins', type: 'pins-1' })),
}

export interface Place {
  readonly iova: bigint
  readonly pages: number
}

export class PinningDriver {
  readonly #kernel: Kernel
  readonly device: number

  constructor(kernel: Kernel, device: number) {
    this.#kernel = kernel
    this.device = device
  }

  async get(register: keyof typeof PINNING_REG): Promise<bigint> {
    const bytes = Buffer.alloc(8)
    must(await this.#kernel.pread(this.device, bytes, BigInt(PINNING_REG[register])), 'read')
    return bytes.readBigUInt64LE()
  }

  async set(register: keyof typeof PINNING_REG, value: bigint): Promise<void> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    must(await this.#kernel.pwrite(this.device, bytes, BigInt(PINNING_REG[register])), 'write')
  }

  async command(name: keyof typeof PINNING_COMMAND): Promise<Said> {
    await this.set('command', PINNING_COMMAND[name])
    return said(Number(BigInt.asIntN(64, await this.get('answer'))))
  }

  async pin({ iova, pages }: Place, { isWritten = false } = {}): Promise<Said> {
    await this.set('iova', iova)
    await this.set('pages', BigInt(pages))
    return this.command(isWritten ? 'pinToWrite' : 'pinToRead')
  }

  async unpin({ iova, pages }: Place): Promise<Said> {
    await this.set('iova', iova)
    await this.set('pages', BigInt(pages))
    return this.command('unpin')
  }

  async read(iova: bigint, length: number): Promise<Said | Uint8Array> {
    await this.set('iova', iova)
    await this.set('length', BigInt(length))
    const answer = await this.command('read')
    if (answer !== 0) return answer
    const bytes = new Uint8Array(length)
    must(await this.#kernel.pread(this.device, bytes, BigInt(PINNING_WINDOW)), 'read the window')
    return bytes
  }

  async write(iova: bigint, bytes: Uint8Array): Promise<Said> {
    must(await this.#kernel.pwrite(this.device, bytes, BigInt(PINNING_WINDOW)), 'fill the window')
    await this.set('iova', iova)
    await this.set('length', BigInt(bytes.length))
    return this.command('write')
  }
}
