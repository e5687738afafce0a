/**
 * Words of a text for full-text search (XEP-0431), the same for every driver. Words are what `Intl.Segmenter`
 * finds, so languages without spaces work; compatibility forms and case are folded. No stemming, no ranking,
 * no phrases.
 */

import type { Doc } from './contract.ts'

/** At most this many different words of one text are found; the rest of the text is not searched. */
export const maxWords = 1000
/** As much of a text is searched; UTF-16 units. No text of a person has so few words that there are not {@link maxWords} in it. */
export const maxText = 65_536
/** Longer words are cut, in the text and in the search alike; UTF-16 units. */
export const maxWordLength = 64

// A fixed locale: the result must not depend on the environment of the process. Dictionaries for Thai, Lao,
// Khmer, Burmese, Chinese and Japanese are used whatever the locale is.
const segmenter = new Intl.Segmenter('en', { granularity: 'word' })

const isAscii = /^[\0-\x7f]*$/
// UAX #15 §13: no language needs more than 30 marks on one letter. Of the characters that become marks by NFKC, those two are none yet.
const tooManyMarks = /([\p{M}\uff9e\uff9f]{30})[\p{M}\uff9e\uff9f]+/gu

/** The form in which texts are compared: NFKC, then case folded (upper, then lower: `ß` equals `SS`). */
export function fold(text: string): string {
  // Most texts, for which the rest would do the same in more time.
  if (isAscii.test(text)) return text.toLowerCase()
  // To put the marks of one letter in order takes a time that grows with the square of their number.
  return text.replace(tooManyMarks, '$1').normalize('NFKC').toUpperCase().toLowerCase()
}

/** The different words of a text, folded, in order of their first occurrence, at most {@link maxWords}. */
export function wordsOf(text: string): Set<string> {
  return wordsOfFolded(searched(text))
}

/** What is searched of a text, folded, which may make it many times as long. */
function searched(text: string): string {
  return cut(fold(cut(text, maxText)), maxText)
}

function wordsOfFolded(folded: string): Set<string> {
  const words = new Set<string>()
  for (const { segment, isWordLike } of segmenter.segment(folded)) {
    if (isWordLike !== true) continue
    words.add(cut(segment, maxWordLength))
    if (words.size === maxWords) break
  }
  return words
}

/** A test for texts that have every word of `query`; without a word in the query, every text passes. */
export function matcher(query: string): (text: string) => boolean {
  const wanted = [...wordsOf(query)]
  if (wanted.length === 0) return () => true
  return (text) => {
    const folded = searched(text)
    // Segmenting costs a hundred times more than looking for the letters, and few texts of an archive have
    // them.
    for (const word of wanted) if (!folded.includes(word)) return false
    const found = wordsOfFolded(folded)
    return wanted.every((word) => found.has(word))
  }
}

/** The text of a document of an archive that does not say which it is: its string field `text`. */
export function textField(doc: Doc): string | undefined {
  const text = doc['text']
  return typeof text === 'string' ? text : undefined
}

function cut(text: string, length: number): string {
  if (text.length <= length) return text
  const last = text.charCodeAt(length - 1)
  // Not through the middle of a surrogate pair: half a character is not text.
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? length - 1 : length)
}
