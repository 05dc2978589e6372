/** Texts that others choose, made fit for a terminal and for a line of a message. */

/** What a terminal would obey, or not show, becomes `?`: control and format characters, line ends. */
export const printable = (text: string): string => text.replace(/\p{C}/gu, '?')
