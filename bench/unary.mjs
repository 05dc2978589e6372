/** Unary calls: how long one takes, and how many there are in a second. */
import { alternate, percentile, row } from './rounds.mjs'

const microseconds = (ms) => ms * 1000

/** Calls one after another while `goesOn` says so; answers how long each took, in microseconds. */
export const callWhile = async (call, goesOn) => {
  const times = []
  while (goesOn()) {
    const started = performance.now()
    await call()
    times.push(microseconds(performance.now() - started))
  }
  return times
}

/** Calls one after another for that long. */
export const callFor = (call, ms) => {
  const over = performance.now() + ms
  return callWhile(call, () => performance.now() < over)
}

const oneByOne =
  (call, { unaryMs }) =>
  async () => {
    const started = performance.now()
    const times = await callFor(call, unaryMs)
    const seconds = (performance.now() - started) / 1000
    return {
      p50: percentile(times, 0.5),
      p99: percentile(times, 0.99),
      rate: times.length / seconds,
    }
  }

const manyAtOnce =
  (call, { unaryMs, inFlight }) =>
  async () => {
    const started = performance.now()
    const loops = Array.from({ length: inFlight }, () => callFor(call, unaryMs))
    const times = (await Promise.all(loops)).flat()
    const rate = times.length / ((performance.now() - started) / 1000)
    return { rate, p99: percentile(times, 0.99) }
  }

/** `calls` has one function per contender, vfiod's first. */
export const unaryRows = async (calls, scale) => {
  const mapped = (measure) =>
    Object.fromEntries(Object.entries(calls).map(([name, call]) => [name, measure(call, scale)]))
  const alone = await alternate(scale, mapped(oneByOne))
  const many = await alternate(scale, mapped(manyAtOnce))
  const latency = { unit: 'us', better: 'lower', answers: alone }
  const rate = { unit: 'calls/s', better: 'higher' }
  return [
    row({ ...latency, name: 'unary latency, median', pick: ({ p50 }) => p50 }),
    row({ ...latency, name: 'unary latency, p99', pick: ({ p99 }) => p99 }),
    row({
      ...rate,
      name: 'unary rate, 1 in flight',
      answers: alone,
      pick: (answer) => answer.rate,
    }),
    row({
      ...rate,
      name: `unary rate, ${scale.inFlight} in flight`,
      answers: many,
      pick: (answer) => answer.rate,
    }),
    row({
      ...latency,
      name: `unary latency, p99, ${scale.inFlight} in flight`,
      answers: many,
      pick: ({ p99 }) => p99,
    }),
  ]
}
