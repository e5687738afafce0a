/** server/xmpp/parser.ts: streams, restarts, encoding. RFC 6120 §4, §11.5, §11.6. */
import { expect } from 'chai'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { Parser } from '../../server/xmpp/parser.ts'
import { conditionOf, HEADER, inStream, LIMITS, Log, refusal, single } from '../helpers/parsing.ts'

describe('parser: streams (RFC 6120 §4.2, §4.4)', () => {
  it('§4.2: delivers header, first-level elements and end tag in order', () => {
    const log = new Log().write(
      `<?xml version='1.0'?>${HEADER}<presence/><message to='a'><body>x</body></message></stream:stream>`,
    )
    expect(log.events).to.deep.equal([
      `open <stream:stream xmlns:stream='${NS.STREAM}' version='1.0'/>`,
      `element <presence xmlns='jabber:client'/>`,
      `element <message xmlns='jabber:client' to='a'><body>x</body></message>`,
      'close',
    ])
    expect(log.events).to.have.length(4)
  })

  it('§4.8.2: tells the content namespace that the header declares', () => {
    expect(new Log().write(HEADER).parser.contentNs).to.equal('jabber:client')
    expect(new Log().write(`<stream xmlns='${NS.STREAM}'>`).parser.contentNs).to.equal(NS.STREAM)
  })

  it('§4.8.2: accepts prefix-free canonicalisation', () => {
    const log = new Log().write(
      `<stream xmlns='${NS.STREAM}'><message xmlns='jabber:client'><body/></message></stream>`,
    )
    expect(log.elements[0]?.getChild('body')?.ns).to.equal('jabber:client')
    expect(log.events.at(-1)).to.equal('close')
  })

  it('§4.8.5: inherits prefixes from the header', () => {
    const log = new Log().write(`${HEADER}<stream:error><reset xmlns='${NS.STREAMS}'/></stream:error>`)
    expect(log.elements[0]?.is('error', NS.STREAM)).to.equal(true)
  })

  it('opens and closes a stream without content', () => {
    const log = new Log().write(`<stream:stream xmlns:stream='${NS.STREAM}'/>`)
    expect(log.events).to.have.length(2)
    expect(log.events[1]).to.equal('close')
  })

  it('accepts white space around everything, and nothing but white space after the end (XML 1.0 §2.1)', () => {
    expect(refusal(` \r\n\t${HEADER} \n <presence\n/> </stream:stream > \n`)).to.equal(undefined)
    for (const more of ['<presence/>', '</stream:stream>', HEADER, 'x', '&amp;', '<![CDATA[x]]>']) {
      expect(refusal(`${HEADER}</stream:stream>${more}`), more).to.equal('not-well-formed')
    }
  })

  it('gives the same events however the bytes are cut', () => {
    const text =
      `<?xml version="1.0" encoding="utf-8"?>\n${HEADER}\r\n<message to='ü@x' xml:lang='de'><body>Grüße 😀 &#x1F600; &lt;\r\n]]</body>` +
      `<x:y xmlns:x="urn:x" x:z='1'><![CDATA[<&]]]]><![CDATA[>]]></x:y></message><iq/></stream:stream>`
    const bytes = Buffer.from(text)
    const expected = new Log().write(bytes).events
    expect(expected).to.have.length(4)
    for (let cut = 1; cut < bytes.length; cut++) {
      const log = new Log()
      log.parser.write(bytes.subarray(0, cut))
      log.parser.write(bytes.subarray(cut))
      expect(log.events, `cut at ${cut}`).to.deep.equal(expected)
    }
    expect(new Log().write(bytes, 1).events).to.deep.equal(expected)
  })

  it('does not keep the buffer it was given', () => {
    const log = new Log()
    const buffer = Buffer.alloc(7)
    for (const byte of Buffer.from(`${HEADER}<message><body>héllo, this is a text</body></message>`)) {
      buffer[3] = byte
      log.parser.write(buffer.subarray(3, 4))
      buffer.fill(0)
    }
    expect(log.elements[0]?.getChildText('body')).to.equal('héllo, this is a text')
  })

  it('end() in the middle of an element is not well-formed, between elements it is no error', () => {
    for (const text of [
      '<',
      `${HEADER}<a`,
      `${HEADER}<a>`,
      `${HEADER}<a>text`,
      `${HEADER}<a>text</`,
      '<?xml ',
    ]) {
      expect(
        conditionOf(() => new Log().write(text).parser.end()),
        text,
      ).to.equal('not-well-formed')
    }
    for (const text of ['', ' ', HEADER, `${HEADER}<a/> `, `${HEADER}</stream:stream>`]) {
      expect(
        conditionOf(() => new Log().write(text).parser.end()),
        text,
      ).to.equal(undefined)
    }
  })
})

describe('parser: stop and reset', () => {
  const NEXT = `<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='${NS.STREAM}' id='2'>`

  function withHandler(element: (el: Element, parser: Parser) => void): { events: string[]; parser: Parser } {
    const events: string[] = []
    const parser: Parser = new Parser(
      {
        open: (root) => events.push(`open ${root.attr('id')}`),
        element(el) {
          events.push(el.name)
          element(el, parser)
        },
        close: () => events.push('close'),
      },
      LIMITS,
    )
    return { events, parser }
  }

  it('stop() inside a callback discards the rest of the input and all that follows', () => {
    const { events, parser } = withHandler((_, own) => own.stop())
    parser.write(Buffer.from(`${HEADER}<a/><b/><<<`))
    parser.write(Buffer.from('<c/>'))
    parser.end()
    expect(events).to.deep.equal(['open undefined', 'a'])
  })

  it('§4.3.3: after reset() inside a callback the rest of the input is a new stream', () => {
    const { events, parser } = withHandler((el, own) => {
      if (el.name === 'auth') own.reset()
    })
    parser.write(Buffer.from(`${HEADER}<auth/>\r\n${NEXT}<b/></stream:stream>`))
    expect(events).to.deep.equal(['open undefined', 'auth', 'open 2', 'b', 'close'])
  })

  it('§4.3.3: after reset() between writes too, with nothing left of the stream before', () => {
    const { events, parser } = withHandler(() => {})
    parser.write(Buffer.from(`${HEADER}<a/><b><c>te`))
    parser.reset()
    parser.write(Buffer.from(`${NEXT}<d/>`))
    expect(events).to.deep.equal(['open undefined', 'a', 'open 2', 'd'])
    expect(conditionOf(() => parser.write(Buffer.from('</b>')))).to.equal('not-well-formed')
  })

  it('§5.4.3.3: what came in clear after <starttls/> is discarded by stop() and reset()', () => {
    const { events, parser } = withHandler((el, own) => {
      if (el.name !== 'starttls') return
      own.stop()
      own.reset()
    })
    parser.write(Buffer.from(`${HEADER}<starttls/>${NEXT}<injected/>`))
    parser.write(Buffer.from(`${NEXT}<b/>`))
    expect(events).to.deep.equal(['open undefined', 'starttls', 'open 2', 'b'])
  })

  it('reset() and stop() work in the open and close callbacks', () => {
    const events: string[] = []
    const parser: Parser = new Parser(
      {
        open(root) {
          events.push(`open ${root.attr('id')}`)
          if (root.attr('id') === 'stop') parser.stop()
          if (root.attr('id') === 'reset') parser.reset()
        },
        element: (el) => events.push(el.name),
        close() {
          events.push('close')
          parser.reset()
        },
      },
      LIMITS,
    )
    parser.write(Buffer.from(`<a id='reset'><b id='2'><c/></b><d id='3'/><e id='stop'><f/>`))
    expect(events).to.deep.equal(['open reset', 'open 2', 'c', 'close', 'open 3', 'close', 'open stop'])
  })

  it('limits replaced inside a callback hold for the next element', () => {
    const { events, parser } = withHandler((_, own) => {
      own.limits = { ...LIMITS, maxBytes: 20 }
    })
    expect(
      conditionOf(() =>
        parser.write(Buffer.from(`${HEADER}<a>${'x'.repeat(100)}</a><b/><c>${'x'.repeat(20)}</c>`)),
      ),
    ).to.equal('policy-violation')
    expect(events).to.deep.equal(['open undefined', 'a', 'b'])
  })

  it('§4.9.1.1: is silent after an error', () => {
    const { events, parser } = withHandler(() => {})
    expect(conditionOf(() => parser.write(Buffer.from(`${HEADER}<a></b>`)))).to.equal('not-well-formed')
    parser.write(Buffer.from('<c/>'))
    expect(events).to.deep.equal(['open undefined'])
  })

  it('an exception of a callback comes out, and the parser is silent afterwards', () => {
    const { events, parser } = withHandler(() => {
      throw new RangeError('mine')
    })
    expect(() => parser.write(Buffer.from(`${HEADER}<a/><b/>`))).to.throw(RangeError, 'mine')
    parser.write(Buffer.from('<c/>'))
    expect(events).to.deep.equal(['open undefined', 'a'])
  })

  it('refuses write() inside a callback of the same parser, and works inside one of another', () => {
    const other = new Log()
    const { events, parser } = withHandler((el, own) => {
      if (el.name === 'a') other.write(`${HEADER}<inner>text</inner>`)
      else own.write(Buffer.from('<c/>'))
    })
    expect(() => parser.write(Buffer.from(`${HEADER}<a>text</a><b/>`))).to.throw('callback')
    expect(events).to.deep.equal(['open undefined', 'a', 'b'])
    expect(other.elements[0]?.text()).to.equal('text')
  })
})

describe('parser: XML declaration and encoding (RFC 6120 §11.5, §11.6; XML 1.0 §2.8, §4.3.3)', () => {
  const declared = (declaration: string) => refusal(declaration + HEADER)

  it('accepts what the production allows', () => {
    for (const rest of [
      `version='1.0'`,
      `version="1.0" encoding="UTF-8"`,
      ` version = '1.0' encoding = 'utf-8' `,
      `version='1.0'\r\n\tencoding='Utf-8'`,
      `version='1.0' standalone='yes'`,
      `version='1.0' encoding='UTF-8' standalone='no' `,
    ]) {
      expect(declared(`<?xml ${rest}?>`), rest).to.equal(undefined)
    }
  })

  it('XML 1.0 §2.8: any version 1.x is read as 1.0, another is none', () => {
    expect(declared(`<?xml version='1.1'?>`)).to.equal(undefined)
    expect(declared(`<?xml version='2.0'?>`)).to.equal('not-well-formed')
  })

  it('refuses what the production does not allow', () => {
    for (const rest of [
      '',
      `encoding='UTF-8'`,
      `version='1.0`,
      `version='1.0"`,
      `version=1.0`,
      `version='1.0'encoding='UTF-8'`,
      `standalone='yes' version='1.0'`,
      `version='1.0' standalone='maybe'`,
      `version='1.0' other='1'`,
      `version='1.'`,
      `version='1.0' ?`,
      `version='1.0' encoding=''`,
      `Version='1.0'`,
    ]) {
      expect(declared(`<?xml ${rest}?>`), rest).to.equal('not-well-formed')
    }
    expect(declared(`<?xml version='1.0'>`)).to.equal('not-well-formed')
  })

  it('allows it at the very start only', () => {
    expect(refusal(` <?xml version='1.0'?>${HEADER}`)).to.equal('not-well-formed')
    expect(refusal(`<?xml version='1.0'?><?xml version='1.0'?>${HEADER}`)).to.equal('not-well-formed')
    expect(inStream(`<?xml version='1.0'?>`)).to.equal('not-well-formed')
    expect(refusal(`${HEADER}</stream:stream><?xml version='1.0'?>`)).to.equal('not-well-formed')
  })

  it('§11.6: other encodings are unsupported', () => {
    for (const encoding of ['UTF-16', 'ISO-8859-1', 'US-ASCII', 'utf8']) {
      expect(declared(`<?xml version='1.0' encoding='${encoding}'?>`), encoding).to.equal(
        'unsupported-encoding',
      )
    }
    for (const hex of [
      'feff003c',
      'fffe3c00',
      '0000feff',
      'fffe0000',
      '003c003f',
      '3c003f00',
      '0000003c',
      '3c000000',
    ]) {
      expect(refusal(Buffer.from(hex, 'hex')), hex).to.equal('unsupported-encoding')
    }
  })

  it('§11.6: U+FEFF is a character, also at the start', () => {
    expect(refusal(`\ufeff${HEADER}`)).to.equal('not-well-formed')
    expect(single('<message>\ufeff</message>').text()).to.equal('\ufeff')
  })

  it('§4.9.3.22: bytes that are no UTF-8 are an unsupported encoding', () => {
    const bad = {
      'a lone continuation byte': '80',
      'an overlong slash': 'c0af',
      'an overlong NUL': 'c080',
      'overlong, three bytes': 'e0809f',
      'overlong, four bytes': 'f0808080',
      'a surrogate': 'eda080',
      'beyond U+10FFFF': 'f4908080',
      'an impossible byte': 'ff',
      'a truncated character': 'e282',
    }
    for (const [what, hex] of Object.entries(bad)) {
      const bytes = Buffer.from(hex, 'hex')
      const places: readonly (readonly [string, string])[] = [
        ['<message><body>', '</body>'],
        [`<message id='`, `'>`],
        ['<message', '>'],
        ['<message a', `='1'>`],
        ['<message><![CDATA[', ']]>'],
      ]
      for (const [before, after] of places) {
        const text = Buffer.concat([Buffer.from(HEADER + before), bytes, Buffer.from(after)])
        expect(refusal(text), `${what} in ${before}`).to.equal('unsupported-encoding')
      }
    }
  })

  it('delivers what stands before the broken bytes', () => {
    const log = new Log()
    const text = Buffer.concat([
      Buffer.from(`${HEADER}<a>é</a><b>é`),
      Buffer.from('ff', 'hex'),
      Buffer.from('</b>'),
    ])
    expect(conditionOf(() => log.write(text))).to.equal('unsupported-encoding')
    expect(log.elements.map((el) => el.name)).to.deep.equal(['a'])
  })

  it('accepts the borders of UTF-8', () => {
    for (const character of [
      '\u007f',
      '\u0080',
      '\u07ff',
      '\u0800',
      '\ud7ff',
      '\ue000',
      '\ufffd',
      '\u{10000}',
      '\u{10ffff}',
    ]) {
      expect(single(`<message id='${character}'>${character}</message>`).text()).to.equal(character)
    }
  })
})
