/**
 * Finds out why a kernel refused, by facts that are read after the refusal. It takes nothing from the
 * refusal: facts that cannot be read, or not in time, leave the causes that the refusal had.
 */

import { setTimeout as after } from 'node:timers/promises'
import type { CauseId } from '../rules/causes/catalog.ts'
import type { Verdict } from '../rules/causes/cause.ts'
import { KernelRefusal } from './refusal.ts'

/** Reads facts about a refusal, and judges its causes by them. */
export type Judge = (refused: KernelRefusal) => Promise<readonly Verdict<CauseId>[]>

/** Milliseconds in which facts have to be read: the caller waits, perhaps in a lane. */
const PATIENCE_MS = 1000

/** What a call answers, or its refusal with the cause, as far as it can be found out. */
export async function explained<T>(
  call: Promise<T>,
  judge: Judge,
  patienceMs: number = PATIENCE_MS,
): Promise<T> {
  try {
    return await call
  } catch (error) {
    throw error instanceof KernelRefusal ? await diagnosed(error, judge, patienceMs) : error
  }
}

async function diagnosed(
  refused: KernelRefusal,
  judge: Judge,
  patienceMs: number,
): Promise<KernelRefusal> {
  if (refused.causes.length === 0) return refused
  const over = new AbortController()
  const late = after(patienceMs, [], { ref: false, signal: over.signal }).catch(() => [])
  try {
    return refused.judged(await Promise.race([judge(refused), late]))
  } catch {
    return refused
  } finally {
    over.abort()
  }
}
