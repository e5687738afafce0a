/** Reading archives in steps: forwards, behind what is known, and backwards within one conversation. */
import { type Page, UnknownEntry } from '../../server/module.ts'
import type { Message, Source } from './service.ts'

/** Entries of one step. */
const STEP = 200
/** Entries of the first step backwards: what is looked for is nearly always near. */
const FIRST_STEP = 20

/** All entries behind `upto` ('' for all), oldest first. */
export async function* following(source: Source, upto: string): AsyncIterable<Message> {
  let seen = upto
  let after = upto === '' ? undefined : upto
  for (;;) {
    let page: Page<Message['doc']>
    try {
      page = await source.archive.page(source.owner, {
        from: 'first',
        limit: STEP,
        ...(after === undefined ? {} : { after }),
      })
    } catch (error) {
      if (!(error instanceof UnknownEntry) || after === undefined) throw error
      // Removed because of its age. What is left is looked at from the beginning; what was seen is known by its id.
      after = undefined
      continue
    }
    for (const entry of page.entries) {
      if (entry.id <= seen) continue
      seen = entry.id
      yield entry
    }
    after = page.entries.at(-1)?.id
    if (page.complete || after === undefined) return
  }
}

/** Entries of one conversation that are not behind `upto`, newest first; `before`: an entry that exists, from which to begin. */
export async function* backwards(
  source: Source,
  peer: string,
  upto: string,
  before?: string,
): AsyncIterable<Message> {
  let from = before
  let limit = FIRST_STEP
  for (;;) {
    let page: Page<Message['doc']>
    try {
      page = await source.archive.page(source.owner, {
        with: peer,
        from: 'last',
        limit,
        ...(from === undefined ? {} : { before: from }),
      })
    } catch (error) {
      // Removed because of its age, and so is all before it.
      if (error instanceof UnknownEntry) return
      throw error
    }
    for (const entry of page.entries.toReversed()) if (entry.id <= upto) yield entry
    from = page.entries[0]?.id
    limit = STEP
    if (page.complete || from === undefined) return
  }
}

/** Those of the entries that exist, in any order. */
export async function* existing(source: Source, ids: readonly string[]): AsyncIterable<Message> {
  for (let i = 0; i < ids.length; i += STEP) {
    const some = ids.slice(i, i + STEP)
    yield* (await source.archive.page(source.owner, { ids: some, from: 'first', limit: some.length })).entries
  }
}
