/**
 * What a saving device still has to send: pages in order, those that changed since they were sent
 * once more, and its registers once it has stopped.
 */

import type { StateImage } from './image.ts'
import { RECORD_SIZE, writePageRecord, writeRegistersRecord } from './records.ts'

export class SaveQueue {
  #image: StateImage
  readonly #initial: number
  readonly #queue: number[] = []
  readonly #isQueued: Uint8Array
  #head = 0
  #registers: Uint8Array | undefined

  /** `initialPages` come first; they are counted apart from what changes. */
  constructor(image: StateImage, initialPages: number) {
    this.#image = image
    this.#initial = initialPages
    this.#isQueued = new Uint8Array(image.pages)
    image.onChange = (page) => this.#add(page)
  }

  addAll(): void {
    for (let page = 0; page < this.#image.pages; page++) this.#add(page)
  }

  /** The device has stopped: nothing changes any more, and its registers are the last record. */
  finish(registers: Uint8Array): void {
    this.#registers = registers.slice()
    this.end()
    this.#image = this.#image.snapshot()
  }

  end(): void {
    this.#image.onChange = () => {}
  }

  get initialBytes(): number {
    return Math.max(0, this.#initial - this.#head) * RECORD_SIZE
  }

  get dirtyBytes(): number {
    return (this.#queue.length - Math.max(this.#head, this.#initial)) * RECORD_SIZE
  }

  /** All that there is to send now. */
  get bytes(): number {
    const pages = this.#queue.length - this.#head
    return (pages + (this.#registers === undefined ? 0 : 1)) * RECORD_SIZE
  }

  /** Writes the next record; false when there is none now. */
  next(into: Uint8Array): boolean {
    const page = this.#queue[this.#head]
    if (page !== undefined) {
      this.#head += 1
      this.#isQueued[page] = 0
      writePageRecord(into, this.#image.id(page), this.#image.pages)
      return true
    }
    if (this.#registers === undefined) return false
    writeRegistersRecord(into, this.#registers, this.#image)
    this.#registers = undefined
    return true
  }

  #add(page: number): void {
    if (this.#isQueued[page] === 1) return
    this.#isQueued[page] = 1
    this.#queue.push(page)
  }
}
