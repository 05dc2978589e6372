/** A progress bar on stderr, for people in front of a terminal; nothing for anybody else. */
import { Presets, SingleBar } from 'cli-progress'
import { bytesText } from './numbers.ts'

export class Progress {
  readonly #bar: SingleBar | undefined
  readonly #started = performance.now()
  #total: number
  #done = 0

  /** The total is an estimate: it grows when it is exceeded. */
  constructor({ label, total }: { readonly label: string; readonly total: bigint }) {
    this.#total = Number(total)
    if (!process.stderr.isTTY) return
    this.#bar = new SingleBar(
      {
        stream: process.stderr,
        format: `${label} {bar} {percentage}%  {doneText} of {totalText}  {rateText}/s`,
        hideCursor: true,
        // vfioctl answers Ctrl-C itself.
        gracefulExit: false,
      },
      Presets.shades_classic,
    )
    this.#bar.start(this.#total, 0, this.#payload())
  }

  add(bytes: number): void {
    this.#done += bytes
    if (this.#done > this.#total) {
      this.#total = this.#done
      this.#bar?.setTotal(this.#total)
    }
    this.#bar?.update(this.#done, this.#payload())
  }

  stop(): void {
    this.#bar?.stop()
  }

  #payload(): object {
    const seconds = (performance.now() - this.#started) / 1000
    return {
      doneText: bytesText(this.#done),
      totalText: bytesText(this.#total),
      rateText: bytesText(seconds > 0 ? Math.round(this.#done / seconds) : 0),
    }
  }
}
