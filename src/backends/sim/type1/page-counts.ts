/** How often drivers have pinned each page of a mapping. */

export class PageCounts {
  /** Invariant: no count is 0. */
  readonly #counts = new Map<number, number>()

  /** How many pages are pinned. */
  get size(): number {
    return this.#counts.size
  }

  get pages(): Iterable<number> {
    return this.#counts.keys()
  }

  has(page: number): boolean {
    return this.#counts.has(page)
  }

  add(page: number): void {
    this.#counts.set(page, (this.#counts.get(page) ?? 0) + 1)
  }

  /** Once less. */
  remove(page: number): void {
    const count = this.#counts.get(page)
    if (count === undefined) throw new Error('Cannot unpin a page that is not pinned')
    if (count > 1) this.#counts.set(page, count - 1)
    else this.#counts.delete(page)
  }
}
