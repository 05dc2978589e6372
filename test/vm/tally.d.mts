export interface Tally {
  onLine(line: string): void
  addCut(): void
  line(): string
}

export function createTally(write?: (text: string) => void): Tally
