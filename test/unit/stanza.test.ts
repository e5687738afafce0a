/** server/xmpp/stanza.ts: RFC 6120 §8. */
import { expect } from 'chai'
import { el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import {
  errorReply,
  isErrorOrResult,
  kind,
  lang,
  reply,
  stanzaErrorOf,
  withLang,
} from '../../server/xmpp/stanza.ts'

const stanza = (xml: string) => parseXml(xml.replace(/^<\w+/, `$& xmlns='jabber:client'`))

describe('stanza: kinds (RFC 6120 §8, §4.8.3)', () => {
  it('three names in the content namespaces', () => {
    for (const ns of [NS.CLIENT, NS.SERVER, NS.COMPONENT]) {
      for (const name of ['message', 'presence', 'iq']) expect(kind(el(name, ns))).to.equal(name)
      expect(kind(el('pubsub', ns))).to.equal(undefined)
    }
    expect(kind(el('message', 'urn:x'))).to.equal(undefined)
    expect(kind(el('message', ''))).to.equal(undefined)
  })

  it('§8.3.1 rule 8, §8.2.3: errors of any kind and iq results are not answered', () => {
    expect(isErrorOrResult(stanza(`<message type='error'/>`))).to.equal(true)
    expect(isErrorOrResult(stanza(`<presence type='error'/>`))).to.equal(true)
    expect(isErrorOrResult(stanza(`<iq type='result'/>`))).to.equal(true)
    expect(isErrorOrResult(stanza(`<iq type='get'/>`))).to.equal(false)
    expect(isErrorOrResult(stanza(`<message type='result'/>`))).to.equal(false)
    expect(isErrorOrResult(stanza(`<message/>`))).to.equal(false)
  })
})

describe('stanza: reply() (RFC 6120 §8.2.3)', () => {
  it('swaps addresses, keeps the id, carries the payload', () => {
    const get = stanza(`<iq type='get' id='7' from='a@x/1' to='b@y'><q xmlns='u'/></iq>`)
    expect(reply(get).toString(NS.CLIENT)).to.equal(`<iq type='result' id='7' to='a@x/1' from='b@y'/>`)
    expect(reply(get, el('q', 'u')).toString(NS.CLIENT)).to.equal(
      `<iq type='result' id='7' to='a@x/1' from='b@y'><q xmlns='u'/></iq>`,
    )
  })

  it('leaves out addresses that were not there', () => {
    expect(reply(stanza(`<iq type='set' id='7'/>`)).toString(NS.CLIENT)).to.equal(
      `<iq type='result' id='7'/>`,
    )
  })
})

describe('stanza: errorReply() (RFC 6120 §8.3.1)', () => {
  const error = new StanzaError('forbidden')
  const forbidden = `<error type='auth'><forbidden xmlns='${NS.STANZAS}'/></error>`

  it('same kind, type error, addresses swapped, id kept, original content first', () => {
    const message = stanza(
      `<message type='chat' id='7' from='a@x/1' to='b@y'><body >hi</body><q xmlns='u'/></message>`,
    )
    expect(errorReply(message, error)?.toString(NS.CLIENT)).to.equal(
      `<message type='error' id='7' to='a@x/1' from='b@y'><body>hi</body><q xmlns='u'/>${forbidden}</message>`,
    )
  })

  it('keeps the namespace and the language', () => {
    const presence = el('presence', NS.SERVER, { from: 'a', to: 'b', 'xml:lang': 'de' })
    expect(errorReply(presence, error)?.toString()).to.equal(
      `<presence xmlns='jabber:server' type='error' to='a' from='b' xml:lang='de'>${forbidden}</presence>`,
    )
  })

  it('rule 3: an iq error has an id, others only when the original has', () => {
    expect(errorReply(stanza(`<iq type='get'/>`), error)?.attr('id')).to.equal('')
    expect(errorReply(stanza(`<message/>`), error)?.attr('id')).to.equal(undefined)
  })

  it('rule 6: large content does not go back', () => {
    const reply = errorReply(stanza(`<message><body>${'x'.repeat(5000)}</body></message>`), error)
    expect(reply?.toString(NS.CLIENT)).to.equal(`<message type='error'>${forbidden}</message>`)
  })

  it('rule 7: an <error/> in a stanza that is none is not repeated', () => {
    const reply = errorReply(stanza(`<message><error type='cancel'/><body/></message>`), error)
    expect(reply?.toString(NS.CLIENT)).to.equal(`<message type='error'><body/>${forbidden}</message>`)
  })

  it('rule 8: never for an error', () => {
    for (const xml of [
      `<message type='error'/>`,
      `<iq type='error' id='1'/>`,
      `<iq type='result' id='1'/>`,
    ]) {
      expect(errorReply(stanza(xml), error)).to.equal(undefined)
    }
  })
})

describe('stanza: stanzaErrorOf() (RFC 6120 §8.3.2)', () => {
  it('reads back what errorReply() writes', () => {
    const error = new StanzaError('gone', {
      text: 'moved',
      type: 'modify',
      app: el('a', 'u'),
      by: 'c',
      uri: 'xmpp:b',
    })
    const read = stanzaErrorOf(errorReply(stanza(`<iq type='get' id='1'/>`), error)!)
    expect(read).to.deep.include({ condition: 'gone', text: 'moved', type: 'modify', by: 'c', uri: 'xmpp:b' })
    expect(read.app?.is('a', 'u')).to.equal(true)
  })

  it('an unknown condition counts as undefined-condition, an unknown type as the usual one', () => {
    const unknown = stanzaErrorOf(
      stanza(`<iq type='error'><error type='odd'><toString xmlns='${NS.STANZAS}'/></error></iq>`),
    )
    expect(unknown).to.deep.include({
      condition: 'undefined-condition',
      type: 'cancel',
      text: undefined,
      by: undefined,
    })
    expect(stanzaErrorOf(stanza(`<iq type='error'/>`)).condition).to.equal('undefined-condition')
  })
})

describe('stanza: languages (RFC 6120 §4.7.4, §8.1.5)', () => {
  it('a stanza without a language gets that of its stream, one with keeps its own', () => {
    expect(lang(withLang(stanza('<message/>'), 'de'))).to.equal('de')
    expect(lang(withLang(stanza(`<message xml:lang='en'/>`), 'de'))).to.equal('en')
    expect(lang(withLang(stanza(`<message xml:lang=''/>`), 'de'))).to.equal('')
    expect(lang(withLang(stanza('<message/>'), undefined))).to.equal(undefined)
  })
})
