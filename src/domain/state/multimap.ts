/** Several values for one key, in the order in which they came. */

export class Multimap<Key, Value> {
  readonly #values = new Map<Key, Set<Value>>()

  of(key: Key): readonly Value[] {
    return [...(this.#values.get(key) ?? [])]
  }

  add(key: Key, value: Value): void {
    const values = this.#values.get(key)
    if (values === undefined) this.#values.set(key, new Set([value]))
    else values.add(value)
  }

  delete(key: Key, value: Value): void {
    const values = this.#values.get(key)
    values?.delete(value)
    if (values?.size === 0) this.#values.delete(key)
  }
}
