/**
 * One port of the mtty sample device: a UART like the 16550 whose transmitter is wired to its own
 * receiver. Its state is one struct, which migration copies as it lies in memory.
 */

const DLAB = 0x80
const FIFO_SIZE = 16

const REG = { data: 0, ier: 1, iirFcr: 2, lcr: 3, mcr: 4, lsr: 5, msr: 6, scr: 7 } as const

const IER = { received: 1, transmitterEmpty: 2, lineStatus: 4, modemStatus: 8 } as const
const IIR = { none: 1, modemStatus: 0, transmitterEmpty: 2, received: 4, lineStatus: 6 } as const
const IIR_FIFOS = 0xc0
const FCR = { enable: 1, clearReceiver: 2, clearTransmitter: 4 } as const
const MCR = { dtr: 1, rts: 2, out2: 8, autoFlow: 0x20 } as const
const LSR = { ready: 1, overrun: 2, holdingEmpty: 0x20, empty: 0x40 } as const
const MSR = { ctsChanged: 1, dsrChanged: 2, cts: 0x10, dsr: 0x20, dcd: 0x80 } as const

/** sizeof(struct serial_port). */
export const PORT_SIZE = 36
const AT = {
  registers: 0,
  fifo: 8,
  head: 24,
  tail: 25,
  count: 26,
  dlab: 27,
  overrun: 28,
  divisor: 30,
  fcr: 32,
  fifoMax: 33,
  trigger: 34,
} as const

export class Uart {
  readonly #interrupt: () => void
  readonly #state = new Uint8Array(PORT_SIZE)

  constructor(interrupt: () => void) {
    this.#interrupt = interrupt
    this.#state[AT.fifoMax] = FIFO_SIZE
  }

  save(): Uint8Array {
    return this.#state.slice()
  }

  load(state: Uint8Array): void {
    this.#state.set(state)
  }

  /** A register's value; undefined where the device leaves the caller's byte as it was. */
  read(register: number): number | undefined {
    switch (register) {
      case REG.data:
        return this.#isDlab ? this.#divisor & 0xff : this.#receive()
      case REG.ier:
        return this.#isDlab ? this.#divisor >> 8 : this.#register(REG.ier) & 0x0f
      case REG.iirFcr:
        return this.#identify()
      case REG.lcr:
      case REG.mcr:
      case REG.scr:
        return this.#register(register)
      case REG.lsr:
        return this.#lineStatus()
      case REG.msr:
        return this.#modemStatus()
      default:
        return undefined
    }
  }

  write(register: number, value: number): void {
    switch (register) {
      case REG.data:
        if (this.#isDlab) this.#divisor |= value
        else this.#transmit(value)
        break
      case REG.ier:
        if (this.#isDlab) this.#divisor |= value << 8
        else {
          this.#state[REG.ier] = value
          if ((value & IER.transmitterEmpty) !== 0 && this.#isEmpty) this.#interrupt()
        }
        break
      case REG.iirFcr:
        this.#control(value)
        break
      case REG.lcr:
        this.#set(AT.dlab, value & DLAB ? 1 : 0)
        if ((value & DLAB) !== 0) this.#divisor = 0
        this.#state[REG.lcr] = value
        break
      case REG.mcr:
        this.#state[REG.mcr] = value
        if (this.#wants(IER.modemStatus) && (value & MCR.out2) !== 0) this.#interrupt()
        if (this.#wants(IER.modemStatus) && (value & (MCR.rts | MCR.dtr)) !== 0) this.#interrupt()
        break
      case REG.scr:
        this.#state[REG.scr] = value
        break
      default:
    }
  }

  #receive(): number | undefined {
    let value: number | undefined
    // A FIFO that is completely full looks as an empty one does: head and tail are equal.
    if (!this.#isEmpty) {
      value = this.#state[AT.fifo + this.#get(AT.tail)]
      this.#set(AT.count, this.#get(AT.count) - 1)
      this.#set(AT.tail, (this.#get(AT.tail) + 1) % FIFO_SIZE)
    }
    if (this.#isEmpty && this.#wants(IER.transmitterEmpty)) this.#interrupt()
    return value
  }

  #transmit(value: number): void {
    if (this.#get(AT.count) < this.#get(AT.fifoMax)) {
      this.#state[AT.fifo + this.#get(AT.head)] = value
      this.#set(AT.count, this.#get(AT.count) + 1)
      this.#set(AT.head, (this.#get(AT.head) + 1) % FIFO_SIZE)
      this.#set(AT.overrun, 0)
      if (this.#wants(IER.received) && this.#get(AT.count) === this.#get(AT.trigger))
        this.#interrupt()
    } else {
      this.#set(AT.overrun, 1)
      if (this.#wants(IER.lineStatus)) this.#interrupt()
    }
  }

  #control(value: number): void {
    this.#set(AT.fcr, value)
    if ((value & (FCR.clearReceiver | FCR.clearTransmitter)) !== 0) {
      this.#set(AT.count, 0)
      this.#set(AT.head, 0)
      this.#set(AT.tail, 0)
    }
    // The trigger level is always 1: the device has no timer for a FIFO that fills up halfway.
    this.#set(AT.trigger, 1)
    this.#set(AT.fifoMax, (value & FCR.enable) !== 0 ? FIFO_SIZE : 1)
  }

  #identify(): number {
    let cause = 0
    if (this.#wants(IER.lineStatus) && this.#get(AT.overrun) !== 0) cause |= IIR.lineStatus
    if (this.#wants(IER.received) && this.#get(AT.count) >= this.#get(AT.trigger))
      cause |= IIR.received
    if (this.#wants(IER.transmitterEmpty) && this.#isEmpty) cause |= IIR.transmitterEmpty
    if (this.#wants(IER.modemStatus) && (this.#register(REG.mcr) & (MCR.rts | MCR.dtr)) !== 0)
      cause |= IIR.modemStatus
    return (cause === 0 ? IIR.none : cause) | IIR_FIFOS
  }

  #lineStatus(): number {
    return (
      (this.#isEmpty ? LSR.holdingEmpty | LSR.empty : LSR.ready) |
      (this.#get(AT.overrun) !== 0 ? LSR.overrun : 0)
    )
  }

  #modemStatus(): number {
    const isHeld =
      (this.#register(REG.mcr) & MCR.autoFlow) !== 0 && this.#get(AT.count) >= this.#get(AT.fifoMax)
    return MSR.dsr | MSR.dsrChanged | MSR.dcd | (isHeld ? 0 : MSR.cts | MSR.ctsChanged)
  }

  get #isDlab(): boolean {
    return this.#get(AT.dlab) !== 0
  }

  get #isEmpty(): boolean {
    return this.#get(AT.head) === this.#get(AT.tail)
  }

  get #divisor(): number {
    return this.#get(AT.divisor) | (this.#get(AT.divisor + 1) << 8)
  }

  set #divisor(value: number) {
    this.#set(AT.divisor, value & 0xff)
    this.#set(AT.divisor + 1, value >> 8)
  }

  #wants(interrupt: number): boolean {
    return (this.#register(REG.ier) & interrupt) !== 0
  }

  #register(index: number): number {
    return this.#get(AT.registers + index)
  }

  #get(at: number): number {
    return this.#state[at] ?? 0
  }

  #set(at: number, value: number): void {
    this.#state[at] = value
  }
}
