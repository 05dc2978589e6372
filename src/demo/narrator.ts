/** Tells the story of the demo, and holds it to what it claims: every claim is checked. */
import { isDeepStrictEqual, styleText } from 'node:util'
import type { Reason } from '../base/error.ts'
import { RpcError } from '../client/rpc-error.ts'

/** The daemon did something else than the demo says it does. */
export class Mismatch extends Error {
  override readonly name = 'Mismatch'

  constructor(what: string, { found, expected }: { found: unknown; expected: unknown }) {
    super(`${what}\n  expected: ${valueText(expected)}\n  found:    ${valueText(found)}`)
  }
}

const valueText = (value: unknown): string =>
  typeof value === 'string' ? value : JSON.stringify(value, (_, each) => plain(each))

const plain = (value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value)

const style = (format: 'bold' | 'green' | 'yellow', text: string): string =>
  process.stdout.isTTY && process.env.NO_COLOR === undefined ? styleText(format, text) : text

/** Of a refusal, so that its lines fit 100 columns. */
const WIDTH = 90

const wrapped = (text: string, width: number): string[] => {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const longer = `${lines.at(-1)} ${word}`
    if (lines.length === 0 || longer.length > width) lines.push(word)
    else lines[lines.length - 1] = longer
  }
  return lines
}

export class Narrator {
  #steps = 0
  #checks = 0

  get steps(): number {
    return this.#steps
  }

  get checks(): number {
    return this.#checks
  }

  step(title: string): void {
    this.#steps += 1
    this.#line(`\n${style('bold', `${this.#steps}. ${title}`)}`)
  }

  say(text: string): void {
    this.#line(`   ${text}`)
  }

  /** What the daemon answered. */
  show(...lines: readonly string[]): void {
    for (const line of lines) this.#line(`     ${line}`)
  }

  /** A claim: it is as expected, or the demo ends here. */
  check(claim: string, found: unknown, expected: unknown): void {
    if (!isDeepStrictEqual(found, expected)) throw new Mismatch(claim, { found, expected })
    this.#checks += 1
    this.#line(`   ${style('green', 'ok')} ${claim}`)
  }

  /** A call that must be refused: shows the refusal as the daemon words it, and its data. */
  async refusal(what: string, reason: Reason, call: Promise<unknown>): Promise<RpcError> {
    const outcome = await call.then(
      () => 'no refusal',
      (error: unknown) => error,
    )
    if (!(outcome instanceof RpcError))
      throw new Mismatch(what, { found: String(outcome), expected: `a refusal, ${reason}` })
    this.showRefusal(outcome.message)
    for (const { subject, found, fix } of outcome.details.blockers ?? [])
      this.#showWrapped('and as data:', `{ subject: ${subject}, found: ${found}, fix: ${fix} }`)
    this.check(`${what} is refused with ${reason}`, outcome.reason, reason)
    return outcome
  }

  showRefusal(message: string): void {
    this.#showWrapped('refused:', message)
  }

  #showWrapped(label: string, text: string): void {
    const [first = '', ...rest] = wrapped(`${label} ${text}`, WIDTH)
    this.show(first.replace(label, style('yellow', label)), ...rest.map((line) => `  ${line}`))
  }

  end(lines: readonly string[]): void {
    this.#line('')
    for (const line of lines) this.#line(style('bold', line))
  }

  #line(text: string): void {
    process.stdout.write(`${text}\n`)
  }
}
