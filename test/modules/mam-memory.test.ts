/** What stays in memory of messages that were archived, or read from an archive: names, not what they are a part of. */
import { expect } from 'chai'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { kindOf } from '../../modules/inbox/kinds.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { archiveHost } from '../helpers/archive.ts'
import { wrapped } from '../helpers/wrapped-store.ts'

const MESSAGES = 100
const SIZE = 200_000

/** Bytes in use, on the heap and in buffers. */
function used(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** A message whose text is not shared with others. */
const large = (i: number): string =>
  Buffer.from(
    `<message xmlns='jabber:client' from='romeo@example.net/x' to='romeo@example.net' type='chat' id='an-id-that-is-cut-out-${i}'><body>${'x'.repeat(SIZE)}</body></message>`,
  ).toString()

describe('what large messages leave in memory', () => {
  it('module mam: nothing, without any id too', async () => {
    const store = wrapped(await openMemory(), (archive) => ({
      append: (owner, { at, with: peer }) => archive.append(owner, { at, with: peer, doc: {} as never }),
    }))
    await using h = await archiveHost({}, { store })
    const juliet = await h.client('juliet@example.org/balcony')
    await juliet.send(large(0).replace(/ from='[^']*'/, ''))
    const before = used()
    for (let i = 0; i < MESSAGES; i++)
      await juliet.send(
        large(i)
          .replace(/ (from|id)='[^']*'/g, '')
          .replace('x<', `${'x'.repeat(i)}<`),
      )
    juliet.take()
    expect(used() - before).to.be.lessThan((MESSAGES * SIZE) / 2)
  })

  it('module inbox: ids and addresses', () => {
    const account = parseJid('juliet@example.org')
    const before = used()
    const kinds = Array.from({ length: MESSAGES }, (_, i) => kindOf(parseXml(large(i)), account))
    expect(used() - before).to.be.lessThan((MESSAGES * SIZE) / 2)
    expect(kinds.at(-1)).to.deep.include({ id: `an-id-that-is-cut-out-${MESSAGES - 1}`, message: true })
  })
})
