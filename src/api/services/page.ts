/**
 * Pages of a list: an answer has a size that the caller, and not what others have made, decides. A token
 * is the key of the last element, so that what comes and goes between two pages moves none of the rest.
 */

const DEFAULT_SIZE = 500
const MAX_SIZE = 2000

export interface PageRequest {
  readonly pageSize: number
  readonly pageToken: string
}

export interface Page<Element> {
  readonly elements: readonly Element[]
  /** Empty on the last page. */
  readonly nextPageToken: string
}

/** The elements that follow those of the token's page, in the order of their keys. */
export function pageOf<Element>(
  elements: Iterable<Element>,
  keyOf: (element: Element) => string,
  { pageSize, pageToken }: PageRequest,
): Page<Element> {
  const size = Math.min(pageSize || DEFAULT_SIZE, MAX_SIZE)
  const following = [...elements]
    .map((element) => ({ key: keyOf(element), element }))
    .filter(({ key }) => key > pageToken)
    .sort((a, b) => (a.key < b.key ? -1 : 1))
  const page = following.slice(0, size)
  const last = following.length > size ? page.at(-1) : undefined
  return { elements: page.map(({ element }) => element), nextPageToken: last?.key ?? '' }
}
