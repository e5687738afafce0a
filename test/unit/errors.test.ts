/** server/xmpp/errors.ts: RFC 6120 §4.9, §6.5, §8.3; XEP-0388 §2.6.2. */
import { expect } from 'chai'
import { el } from '../../server/xmpp/element.ts'
import {
  RequestTimeout,
  SASL_CONDITIONS,
  SaslError,
  STANZA_CONDITIONS,
  StanzaError,
  STREAM_CONDITIONS,
  StreamError,
} from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'

describe('errors', () => {
  it('RFC 6120 §8.3.3: each condition has the type that is recommended for it', () => {
    const byType = (type: string) =>
      Object.entries(STANZA_CONDITIONS).flatMap(([name, its]) => (its === type ? name : []))
    expect(byType('auth').join(' ')).to.equal(
      'forbidden not-authorized registration-required subscription-required',
    )
    expect(byType('modify').join(' ')).to.equal(
      'bad-request jid-malformed not-acceptable policy-violation redirect unexpected-request',
    )
    expect(byType('wait').join(' ')).to.equal(
      'recipient-unavailable remote-server-timeout resource-constraint',
    )
    expect(Object.keys(STANZA_CONDITIONS)).to.have.length(22)
  })

  it('RFC 6120 §8.3.2: stanza errors have a condition, then text, then an application-specific condition', () => {
    expect(new StanzaError('not-allowed').toElement(NS.CLIENT).toString(NS.CLIENT)).to.equal(
      `<error type='cancel'><not-allowed xmlns='${NS.STANZAS}'/></error>`,
    )
    const error = new StanzaError('policy-violation', {
      text: 'Too <fast>',
      type: 'wait',
      app: el('rate', 'urn:x'),
      by: 'a.example',
    })
    expect(error.toElement(NS.SERVER).toString(NS.SERVER)).to.equal(
      `<error type='wait' by='a.example'><policy-violation xmlns='${NS.STANZAS}'/>` +
        `<text xmlns='${NS.STANZAS}' xml:lang='en'>Too &lt;fast&gt;</text><rate xmlns='urn:x'/></error>`,
    )
  })

  it('RFC 6120 §8.3.3.5, §8.3.3.14: gone and redirect carry an address', () => {
    const error = new StanzaError('gone', { uri: 'xmpp:b@example' })
    expect(error.toElement(NS.CLIENT).getChildText('gone', NS.STANZAS)).to.equal('xmpp:b@example')
  })

  it('RFC 6120 §4.9.2: stream errors', () => {
    expect(new StreamError('conflict').toElement().toString(NS.CLIENT)).to.equal(
      `<stream:error><conflict xmlns='${NS.STREAMS}'/></stream:error>`,
    )
    expect(
      new StreamError('policy-violation', 'Too big', el('stanza-too-big', 'urn:xmpp:errors'))
        .toElement()
        .toString(NS.CLIENT),
    ).to.equal(
      `<stream:error><policy-violation xmlns='${NS.STREAMS}'/><text xmlns='${NS.STREAMS}' xml:lang='en'>Too big</text>` +
        `<stanza-too-big xmlns='urn:xmpp:errors'/></stream:error>`,
    )
    expect(STREAM_CONDITIONS).to.have.length(25)
  })

  it('RFC 6120 §4.9.3.19: see-other-host carries the host', () => {
    expect(new StreamError('see-other-host', '[::1]:9222').toElement().toString(NS.CLIENT)).to.equal(
      `<stream:error><see-other-host xmlns='${NS.STREAMS}'>[::1]:9222</see-other-host></stream:error>`,
    )
  })

  it('RFC 6120 §6.5, XEP-0388 §2.6.2: SASL failures', () => {
    const failure = new SaslError('account-disabled', 'Call us')
    expect(failure.toElement().toString()).to.equal(
      `<failure xmlns='${NS.SASL}'><account-disabled/><text xml:lang='en'>Call us</text></failure>`,
    )
    expect(failure.toElement(NS.SASL2).toString()).to.equal(
      `<failure xmlns='${NS.SASL2}'><account-disabled xmlns='${NS.SASL}'/><text xml:lang='en'>Call us</text></failure>`,
    )
    expect(SASL_CONDITIONS).to.have.length(11)
  })

  it('are errors whose message says what to log', () => {
    expect(new StanzaError('forbidden')).to.be.an('error').with.property('message', 'forbidden')
    expect(new StanzaError('forbidden', { text: 'no' }).message).to.equal('forbidden: no')
    expect(new StreamError('reset', 'why').message).to.equal('reset: why')
    expect(new SaslError('aborted').message).to.equal('aborted')
    for (const [error, name] of [
      [new StanzaError('gone'), 'StanzaError'],
      [new StreamError('reset'), 'StreamError'],
      [new SaslError('aborted'), 'SaslError'],
      [new RequestTimeout(), 'RequestTimeout'],
    ] as const) {
      expect(error.name).to.equal(name)
    }
  })
})
