/** An mtty device through the port: its registers, and its migration states. */

import { VFIO_DEVICE_RESET } from '../../src/abi/device.ts'
import {
  VFIO_DEVICE_STATE_PRE_COPY,
  VFIO_DEVICE_STATE_PRE_COPY_P2P,
  VFIO_DEVICE_STATE_RESUMING,
  VFIO_DEVICE_STATE_RUNNING,
  VFIO_DEVICE_STATE_RUNNING_P2P,
  VFIO_DEVICE_STATE_STOP,
  VFIO_DEVICE_STATE_STOP_COPY,
} from '../../src/abi/mig-v2.ts'
import { must } from './answers.ts'
import { getMigState, type MigState, setMigState } from './calls.ts'
import type { Machine, MttyType } from './machine.ts'

/** The states by the names of vfio.h. */
export const STATE = {
  STOP: VFIO_DEVICE_STATE_STOP,
  RUNNING: VFIO_DEVICE_STATE_RUNNING,
  STOP_COPY: VFIO_DEVICE_STATE_STOP_COPY,
  RESUMING: VFIO_DEVICE_STATE_RESUMING,
  RUNNING_P2P: VFIO_DEVICE_STATE_RUNNING_P2P,
  PRE_COPY: VFIO_DEVICE_STATE_PRE_COPY,
  PRE_COPY_P2P: VFIO_DEVICE_STATE_PRE_COPY_P2P,
} as const
export type StateName = keyof typeof STATE

/** Registers of a port, as a 16550 has them. */
export const UART = { data: 0, ier: 1, iirFcr: 2, lcr: 3, mcr: 4, lsr: 5, msr: 6, scr: 7 } as const

export const HEADER_SIZE = 24
export const PORT_SIZE = 36

export class MttyDriver {
  readonly #machine: Machine
  readonly device: number

  constructor(machine: Machine, device: number) {
    this.#machine = machine
    this.device = device
  }

  /** A new instance, open and running. */
  static async make(machine: Machine, type: MttyType): Promise<MttyDriver> {
    const { device } = await machine.opened(await machine.mtty(type))
    return new MttyDriver(machine, device)
  }

  async read(register: number, port = 0): Promise<number> {
    const byte = Buffer.alloc(1)
    const at = (BigInt(port) << 40n) + BigInt(register)
    must(await this.#machine.kernel.pread(this.device, byte, at), 'read a register')
    return byte[0] as number
  }

  async write(register: number, value: number, port = 0): Promise<void> {
    const at = (BigInt(port) << 40n) + BigInt(register)
    const { kernel } = this.#machine
    must(await kernel.pwrite(this.device, Buffer.from([value]), at), 'write a register')
  }

  /** Sets a state; a data_fd that came is closed after the test. */
  async set(state: StateName | number): Promise<MigState> {
    const number = typeof state === 'number' ? state : STATE[state]
    const set = await setMigState(this.#machine.kernel, this.device, number)
    if (set.answer === 0) this.#machine.track(set.dataFd)
    return set
  }

  /** The data_fd of a state that opens a session. */
  async session(state: StateName): Promise<number> {
    const { answer, dataFd } = await this.set(state)
    must(answer, `set ${state}`)
    return dataFd
  }

  async state(): Promise<number> {
    return (await getMigState(this.#machine.kernel, this.device)).state
  }

  reset(): Promise<number> {
    return this.#machine.kernel.ioctl(this.device, VFIO_DEVICE_RESET.number, undefined)
  }

  /** What a data_fd has until it has no more. */
  async drain(dataFd: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    for (;;) {
      const piece = Buffer.alloc(16)
      const length = must(await this.#machine.kernel.read(dataFd, piece), 'read the data_fd')
      if (length === 0) return Buffer.concat(pieces)
      pieces.push(piece.subarray(0, length))
    }
  }

  /** The whole stream of the device as it is, which stops it. */
  async saved(): Promise<Buffer> {
    return this.drain(await this.session('STOP_COPY'))
  }
}
