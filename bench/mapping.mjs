/** Map and Unmap: pages per second, one per call and many per call. */
import { alternate, row } from './rounds.mjs'

const perSecond = async (count, work) => {
  const started = performance.now()
  await work()
  return count / ((performance.now() - started) / 1000)
}

/** Maps `calls` times `items` pages one call after another, then unmaps them the same way. */
const mapAndUnmap =
  (target, { calls, items }) =>
  async () => {
    const each = (act) => async () => {
      for (let call = 0; call < calls; call += 1) await act(call * items)
    }
    const map = await perSecond(
      calls * items,
      each((first) => target.map(first, items)),
    )
    const unmap = await perSecond(
      calls * items,
      each((first) => target.unmap(first, items)),
    )
    return { map, unmap }
  }

const rowsFor = async (targets, scale, { calls, items, text }) => {
  const contenders = Object.fromEntries(
    Object.entries(targets).map(([name, target]) => [name, mapAndUnmap(target, { calls, items })]),
  )
  const answers = await alternate(scale, contenders)
  const common = { unit: 'items/s', better: 'higher', answers }
  return [
    row({ ...common, name: `map, ${text}`, pick: ({ map }) => map }),
    row({ ...common, name: `unmap, ${text}`, pick: ({ unmap }) => unmap }),
  ]
}

/** `targets` has vfiod first. */
export const mappingRows = async (targets, scale) => {
  const { singleCalls, batchCalls, batchItems } = scale
  const single = { calls: singleCalls, items: 1, text: '1 item per call' }
  const batch = { calls: batchCalls, items: batchItems, text: `${batchItems} items per call` }
  return [...(await rowsFor(targets, scale, single)), ...(await rowsFor(targets, scale, batch))]
}
