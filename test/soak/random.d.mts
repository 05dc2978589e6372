/** See random.mjs. */
export declare class Random {
  constructor(seed: number)
  /** A whole number below `end`. */
  below(end: number): number
  pick<T>(values: readonly T[]): T
  bytes(length: number): Buffer
}
