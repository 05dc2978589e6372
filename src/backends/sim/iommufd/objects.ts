/**
 * The objects of an iommufd: each has an id, the lowest that is free, and a count of its users. Only
 * an object without users can be destroyed, so closing goes from the leaves to the roots.
 */

import { ERRNO } from '../../../base/errno.ts'

export abstract class IommufdObject {
  /** 0 until the object is in a table. */
  id = 0
  /** Invariant: how many other objects, open files and drivers refer to it. */
  users = 0

  /** It is out of the table, and gives back what it refers to. */
  abstract destroy(): void
}

type Kind<T extends IommufdObject> = abstract new (...args: never[]) => T

export class ObjectTable {
  readonly #objects = new Map<number, IommufdObject>()
  /** Invariant: every id below it is taken. */
  #firstFree = 1

  get size(): number {
    return this.#objects.size
  }

  /** The id that the next object gets. */
  get nextId(): number {
    while (this.#objects.has(this.#firstFree)) this.#firstFree += 1
    return this.#firstFree
  }

  insert<T extends IommufdObject>(object: T): T {
    object.id = this.nextId
    this.#objects.set(object.id, object)
    return object
  }

  /** The object of that kind with the id, or undefined; a caller answers -ENOENT then. */
  find<T extends IommufdObject>(id: number, kind: Kind<T>): T | undefined {
    const object = this.#objects.get(id)
    return object instanceof kind ? object : undefined
  }

  /** IOMMU_DESTROY. */
  destroy(id: number): number {
    const object = this.#objects.get(id)
    if (object === undefined) return -ERRNO.ENOENT
    if (object.users > 0) return -ERRNO.EBUSY
    this.remove(object)
    return 0
  }

  remove(object: IommufdObject): void {
    this.#objects.delete(object.id)
    if (object.id < this.#firstFree) this.#firstFree = object.id
    object.destroy()
  }

  /** Destroys leaves until nothing is left. */
  destroyAll(): void {
    while (this.#objects.size > 0) {
      const leaves = [...this.#objects.values()].filter(({ users }) => users === 0)
      if (leaves.length === 0) throw new Error('Cannot destroy objects that use each other')
      for (const leaf of leaves) this.remove(leaf)
    }
  }
}
