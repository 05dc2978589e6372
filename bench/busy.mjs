/**
 * Unary calls while a map of several GiB is under way. The map makes the kernel fault in every page
 * and sleeps meanwhile; it holds a core, as pinning does. What it may not hold is the event loop: then
 * no call would be answered until the map is, and the longest would last as long as the map.
 */
import { alternate, percentile, row } from './rounds.mjs'
import { callFor, callWhile } from './unary.mjs'

const duringMap = (target, bytes) => async () => {
  await target.allocateBig(bytes)
  let isMapped = false
  const started = performance.now()
  const mapped = target.mapBig(bytes).finally(() => {
    isMapped = true
  })
  const times = await callWhile(
    () => target.state(),
    () => !isMapped,
  )
  await mapped
  const mapMs = performance.now() - started
  await target.freeBig()
  return { times, mapMs }
}

const withoutMap = (target, ms) => async () => ({ times: await callFor(() => target.state(), ms) })

const worst = (times) => times.reduce((longest, time) => Math.max(longest, time), 0)

/** `targets` has vfiod first; each maps memory of its own. */
export const busyRows = async (targets, scale) => {
  const { bigMapRounds, bigMapBytes, unaryMs } = scale
  const [[vfiod, own]] = Object.entries(targets)
  const mapping = Object.fromEntries(
    Object.entries(targets).map(([name, target]) => [name, duringMap(target, bigMapBytes)]),
  )
  const idle = `${vfiod} without a map`
  const answers = await alternate(
    { ...scale, rounds: bigMapRounds },
    { ...mapping, [idle]: withoutMap(own, unaryMs) },
  )
  const { [idle]: _, ...maps } = answers
  const text = `during a map of ${bigMapBytes / 2 ** 20} MiB`
  const latency = { unit: 'us', better: 'lower', answers }
  return [
    row({
      ...latency,
      name: `unary latency ${text}, median`,
      pick: ({ times }) => percentile(times, 0.5),
    }),
    row({
      ...latency,
      name: `unary latency ${text}, p99`,
      pick: ({ times }) => percentile(times, 0.99),
    }),
    row({ ...latency, name: `unary latency ${text}, worst`, pick: ({ times }) => worst(times) }),
    row({
      name: 'worst unary latency, share of that map',
      unit: '%',
      better: 'lower',
      answers: maps,
      pick: ({ times, mapMs }) => (worst(times) / 1000 / mapMs) * 100,
    }),
    row({
      name: 'the map itself',
      unit: 'ms',
      better: 'lower',
      answers: maps,
      pick: ({ mapMs }) => mapMs,
    }),
  ]
}
