/** The tools of the dialogues must be able to fail: pattern matching, the file format, announced differences. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { type Captures, matchElement, parseDocument, parseFragment, parsePattern } from '../helpers/xml.ts'
import { loadDialogues, parseDialogues } from './format.ts'

function differs(pattern: string, actual: string, captures: Captures = new Map()): string | undefined {
  const [wanted] = parsePattern(pattern)
  const [got] = parseFragment(actual, "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'")
  if (wanted === undefined || got === undefined) throw new Error('nothing to compare')
  return matchElement(wanted, got, captures)
}

describe('patterns', () => {
  it('compare names, namespaces, attributes, children and text', () => {
    const same = "<message to='a'><body>x</body></message>"
    expect(differs(same, same)).to.equal(undefined)
    expect(differs(same, "<message to='b'><body>x</body></message>")).to.contain('@to')
    expect(differs(same, '<message><body>x</body></message>')).to.contain('absent')
    expect(differs(same, "<message to='a' id='1'><body>x</body></message>")).to.contain('not expected')
    expect(differs(same, "<message to='a'><body>y</body></message>")).to.contain('text')
    expect(differs(same, "<message to='a'/>")).to.contain('missing')
    expect(differs(same, "<message to='a'><body>x</body><subject/></message>")).to.contain('not expected')
    expect(differs(same, "<message to='a'><body xmlns='urn:x'>x</body></message>")).to.contain('urn:x')
    expect(differs(same, "<presence to='a'><body>x</body></presence>")).to.contain('presence')
  })

  it('compare prefixed names by what they mean', () => {
    expect(differs("<a xmlns='urn:x'/>", "<p:a xmlns:p='urn:x'/>")).to.equal(undefined)
    expect(differs("<a xmlns:p='urn:x' p:b='1'/>", "<a xmlns:q='urn:x' q:b='1'/>")).to.equal(undefined)
    expect(differs("<a xmlns:p='urn:x' p:b='1'/>", "<a xmlns:q='urn:y' q:b='1'/>")).to.contain('absent')
  })

  it('know marks for anything, optional, forbidden, alternatives and regular expressions', () => {
    expect(differs("<a b='*'/>", "<a b='1'/>")).to.equal(undefined)
    expect(differs("<a b='*'/>", '<a/>')).to.contain('absent')
    expect(differs("<a b='?1'/>", '<a/>')).to.equal(undefined)
    expect(differs("<a b='?1'/>", "<a b='2'/>")).to.contain("'2'")
    expect(differs("<a b='!'/>", "<a b='2'/>")).to.contain('instead of nothing')
    expect(differs("<a b='(1|2)'/>", "<a b='2'/>")).to.equal(undefined)
    expect(differs("<a b='(1|2)'/>", "<a b='3'/>")).to.contain("'3'")
    expect(differs('<a>/^x+$/</a>', '<a>xx</a>')).to.equal(undefined)
    expect(differs('<a>/^x+$/</a>', '<a>xy</a>')).to.contain('text')
    expect(differs('<a>...</a>', '<a><b/>text</a>')).to.equal(undefined)
    expect(differs("<a etc=''/>", "<a b='1'/>")).to.equal(undefined)
  })

  it('capture a value, and compare it the second time', () => {
    const captures: Captures = new Map()
    expect(differs("<a b='$x' c='$x'/>", "<a b='1' c='2'/>", captures)).to.contain("'2' instead of '1'")
    expect(captures.size, 'a failed match captures nothing').to.equal(0)
    expect(differs("<a b='$x'/>", "<a b='1'/>", captures)).to.equal(undefined)
    expect(differs("<a c='$x'/>", "<a c='2'/>", captures)).to.contain("'2' instead of '1'")
  })

  it('need each child once, in any order', () => {
    expect(differs('<a><b/><c/></a>', '<a><c/><b/></a>')).to.equal(undefined)
    expect(differs('<a><b/><b/></a>', '<a><b/></a>')).to.contain('missing')
    expect(differs('<a><b/></a>', '<a><b/><b/></a>')).to.contain('not expected')
  })

  it('read the condition of an error, whatever is added to it', () => {
    const conditions = "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'"
    const actual = `<error type='cancel' by='x'><gone ${conditions}/><text ${conditions}>no</text></error>`
    expect(differs("<error type='cancel'><gone/></error>", actual)).to.equal(undefined)
    expect(differs("<error type='cancel'><conflict/></error>", actual)).to.contain('conflict')
    expect(differs("<error type='modify'><gone/></error>", actual)).to.contain("'cancel'")
  })

  it('are read by a parser that refuses what a server must not send (RFC 6120 §11.1)', () => {
    expect(() => parseFragment('<a><!-- b --></a>')).to.throw('a comment')
    expect(() => parseFragment('<a>&nbsp;</a>')).to.throw()
    expect(() => parseFragment('<a><b></a>')).to.throw()
    expect(() => parseFragment('<x:a/>')).to.throw()
    expect(() => parseDocument('<a/><b/>')).to.throw('not one document')
  })
})

describe('dialogue files', () => {
  const head = '== t\nspec: RFC 6120 §1\n'

  it('have steps with payloads on the same line or below', () => {
    const [dialogue] = parseDialogues(
      `${head}a sends: <x/>\nb receives:\n  <y\n   z='1'/>\n  <v/>\nc pings\n`,
      'f',
    )
    expect(dialogue?.steps.map((step) => [step.text, step.payload])).to.deep.equal([
      ['a sends', '<x/>'],
      ['b receives', "<y z='1'/><v/>"],
      ['c pings', ''],
    ])
  })

  it('announce differences at a step', () => {
    const [dialogue] = parseDialogues(`${head}a pings\ndiffers prosody: why\nb pings\n`, 'f')
    expect(dialogue?.steps.map((step) => step.differs.get('prosody'))).to.deep.equal([undefined, 'why'])
  })

  it('must cite a spec, have steps, and give reasons', () => {
    expect(() => parseDialogues('== t\na pings\n', 'f')).to.throw('no spec')
    expect(() => parseDialogues(head, 'f')).to.throw('no steps')
    expect(() => parseDialogues(`${head}skip prosody:\na pings\n`, 'f')).to.throw('reason')
    expect(() => parseDialogues(`${head}a receives:\nb pings\n`, 'f')).to.throw('nothing follows')
    expect(() => parseDialogues('a pings\n', 'f')).to.throw('before the first')
  })

  it('are all readable, with titles that occur once in their file', () => {
    for (const [file, dialogues] of loadDialogues(import.meta.dirname)) {
      const titles = dialogues.map((dialogue) => dialogue.title)
      expect(new Set(titles).size, file).to.equal(titles.length)
    }
  })
})
