/** A hook of Node's module loader: the daemon finds simulator.mjs where it asks for its simulator. */

const SIMULATOR = /\/dist\/backends\/sim\/sim\.js$/
const COMPOSITION = /\/dist\/daemon\/compose\.js$/

let sessionBytes = 0

export const initialize = (data) => {
  sessionBytes = data.sessionBytes
}

export const resolve = async (specifier, context, nextResolve) => {
  const found = await nextResolve(specifier, context)
  if (!SIMULATOR.test(found.url) || !COMPOSITION.test(context.parentURL ?? '')) return found
  const url = new URL('simulator.mjs', import.meta.url)
  url.searchParams.set('sessionBytes', sessionBytes)
  return { ...found, url: url.href }
}
