/**
 * What a command prints, on stdout as a rule: text for people, or with --json the message of the API as it
 * is: names in camelCase, numbers of 64 bits as decimal strings.
 */
export class Output {
  readonly isJson: boolean
  readonly #stream: NodeJS.WriteStream

  constructor(options: { readonly isJson: boolean; readonly stream?: NodeJS.WriteStream }) {
    this.isJson = options.isJson
    this.#stream = options.stream ?? process.stdout
  }

  /** The same on stderr, for a command whose stdout carries data. */
  onStderr(): Output {
    return new Output({ isJson: this.isJson, stream: process.stderr })
  }

  /** The answer of a command. The text is made only when it is wanted. */
  answer(value: unknown, text: () => string): void {
    this.#write(this.isJson ? JSON.stringify(value, spellOut, 2) : text())
  }

  /** One of many answers, as they come: with --json one line each. */
  event(value: unknown, text: () => string): void {
    this.#write(this.isJson ? JSON.stringify(value, spellOut) : text())
  }

  /** For people only. */
  note(text: string): void {
    if (!this.isJson) this.#write(text)
  }

  #write(text: string): void {
    this.#stream.write(`${text}\n`)
  }
}

/** JSON has no numbers of 64 bits, so they are strings, as in the JSON form of protobuf. */
export const spellOut = (_: string, value: unknown): unknown =>
  typeof value === 'bigint' ? String(value) : value
