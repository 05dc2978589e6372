/**
 * Bytes as people read them: offset, numbers, text. With a width the numbers are little-endian
 * words, as the registers of PCI devices are. Repeated lines are shown once, then `*`.
 */
import type { Width } from './numbers.ts'

const PER_LINE = 16

const wordsText = (line: Buffer, width: Width): string => {
  const words: string[] = []
  for (let at = 0; at < line.length; at += width)
    words.push(
      Buffer.from(line.subarray(at, at + width))
        .reverse()
        .toString('hex'),
    )
  const full = (PER_LINE / width) * (2 * width + 1) - 1
  return words.join(' ').padEnd(full)
}

const lettersText = (line: Buffer): string =>
  line.toString('latin1').replaceAll(/[^\x20-\x7e]/g, '.')

export const hexDump = (
  data: Buffer,
  { offset, width = 1 }: { readonly offset: bigint; readonly width?: Width | undefined },
): string => {
  const digits = Math.max(4, (offset + BigInt(data.length)).toString(16).length)
  const lines: string[] = []
  let before: Buffer | undefined
  let isSkipping = false
  for (let at = 0; at < data.length; at += PER_LINE) {
    const line = data.subarray(at, at + PER_LINE)
    const isLast = at + PER_LINE >= data.length
    if (!isLast && before !== undefined && line.equals(before)) {
      if (!isSkipping) lines.push('*')
      isSkipping = true
      continue
    }
    isSkipping = false
    before = line
    const address = (offset + BigInt(at)).toString(16).padStart(digits, '0')
    lines.push(`${address}  ${wordsText(line, width)}  ${lettersText(line)}`)
  }
  return lines.join('\n')
}
