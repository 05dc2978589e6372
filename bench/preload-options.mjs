/** How a daemon of the bench is started with bench/preload.mjs, and how that reads it back. */

const PRELOAD = new URL('preload.mjs', import.meta.url)

/** Arguments of node: each session has so many bytes; `choice` is one of slower.mjs, or empty. */
export const preloadOf = ({ sessionBytes, choice }) => [
  '--import',
  `${PRELOAD}?${new URLSearchParams({ sessionBytes, choice })}`,
]

/** The same, from the URL of the module that was loaded so. */
export const preloadOptions = (url) => {
  const { searchParams } = new URL(url)
  return {
    sessionBytes: Number(searchParams.get('sessionBytes')),
    choice: searchParams.get('choice') ?? '',
  }
}
