/**
 * One operation at a time. What runs in a lane starts when everything before it has ended, so
 * "what may happen between these two awaits?" is not a question inside one.
 */
export class Lane {
  #tail: Promise<unknown> = Promise.resolve()

  /** Run `operation` after everything that was given before; answers or throws as it does. */
  run<T>(operation: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(operation)
    this.#tail = result.catch(() => undefined)
    return result
  }
}
