/**
 * How things are compared: one after the other within a round, so that both see the same machine,
 * and each round starts with another one. The ratio is the median of the rounds' ratios: it holds
 * where the machine drifts, when absolute figures do not.
 */

export const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

export const percentile = (values, fraction) => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))]
}

/**
 * Runs every contender once per round; answers, by its name, what it answered in each. The first
 * round is for warming up and does not count. On a machine that is busy with other things there are
 * fewer rounds than asked for: none is begun after `sectionMs`, but there are always two.
 */
export const alternate = async ({ rounds, sectionMs }, contenders) => {
  const names = Object.keys(contenders)
  const answers = Object.fromEntries(names.map((name) => [name, []]))
  const over = performance.now() + sectionMs
  for (let round = 0; round <= rounds && (round < 2 || performance.now() < over); round += 1) {
    for (let turn = 0; turn < names.length; turn += 1) {
      const name = names[(round + turn) % names.length]
      const answer = await contenders[name]()
      if (round > 0) answers[name].push(answer)
    }
  }
  return answers
}

const figure = (samples) => ({
  median: median(samples),
  min: Math.min(...samples),
  max: Math.max(...samples),
  samples,
})

/**
 * One row of the table. The first contender is vfiod, the others are its peers; `pick` takes the
 * row's figure from what a contender answered. Ratios are above 1 where vfiod is the better one.
 */
export const row = ({ name, unit, better, answers, pick = (answer) => answer }) => {
  const samplesOf = (contender) => answers[contender].map(pick)
  const [first, ...others] = Object.keys(answers)
  const own = samplesOf(first)
  const ratioTo = (peer) =>
    median(
      own.map((value, round) => (better === 'higher' ? value / peer[round] : peer[round] / value)),
    )
  const peers = others.map((peer) => {
    const samples = samplesOf(peer)
    return { name: peer, ...figure(samples), ratio: ratioTo(samples) }
  })
  return { name, unit, better, vfiod: figure(own), peers }
}
