/** server/xmpp/parser.ts: RFC 6120 §4, §11; XML 1.0 fifth edition; Namespaces in XML 1.0. */
import { expect } from 'chai'
import type { Element } from '../../server/xmpp/element.ts'
import { type StreamCondition, StreamError } from '../../server/xmpp/errors.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { Parser, type ParserLimits, parseXml } from '../../server/xmpp/parser.ts'

const LIMITS: ParserLimits = { maxBytes: 10_000, maxDepth: 20, maxAttrs: 20, maxName: 100 }
const HEADER = `<stream:stream xmlns='jabber:client' xmlns:stream='${NS.STREAM}' version='1.0'>`

/** Everything a parser delivered, as text, so that two runs can be compared. */
class Log {
  readonly events: string[] = []
  readonly elements: Element[] = []
  readonly parser: Parser

  constructor(limits: ParserLimits = LIMITS) {
    this.parser = new Parser(
      {
        open: (root) => this.events.push(`open ${root}`),
        element: (el) => {
          this.elements.push(el)
          this.events.push(`element ${el}`)
        },
        close: () => this.events.push('close'),
      },
      limits,
    )
  }

  write(text: string | Buffer): this {
    this.parser.write(Buffer.from(text))
    return this
  }
}

function conditionOf(run: () => unknown): StreamCondition | undefined {
  try {
    run()
  } catch (error) {
    if (error instanceof StreamError) return error.condition
    throw error
  }
  return undefined
}

/** What the stream `text` ends with: whole, and byte by byte; both must agree. */
function refusal(text: string | Buffer, limits?: ParserLimits): StreamCondition | undefined {
  const bytes = Buffer.from(text)
  const whole = conditionOf(() => new Log(limits).write(bytes))
  const single = new Log(limits)
  const split = conditionOf(() => {
    for (const byte of bytes) single.parser.write(Uint8Array.of(byte))
  })
  expect(split, `byte by byte: ${text}`).to.equal(whole)
  return whole
}

/** As `refusal` for something inside a stream header. */
const inStream = (text: string, limits?: ParserLimits) => refusal(HEADER + text, limits)
/** As `refusal` for the content of a stanza. */
const inStanza = (text: string, limits?: ParserLimits) => inStream(`<message>${text}</message>`, limits)
const document = (text: string) => conditionOf(() => parseXml(text))

/** The only element of a stream. */
function single(text: string): Element {
  const log = new Log().write(HEADER + text)
  expect(log.elements).to.have.length(1)
  return log.elements[0]!
}

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
    const log = new Log()
    for (const byte of bytes) log.parser.write(Uint8Array.of(byte))
    expect(log.events).to.deep.equal(expected)
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

describe('parser: restricted XML (RFC 6120 §11.1)', () => {
  const restricted = [
    '<!-- x -->',
    '<!---->',
    '<?php x?>',
    '<?xml-stylesheet x?>',
    '<!DOCTYPE a>',
    '<!DOCTYPE a [<!ENTITY b "c">]>',
  ]

  it('comments, processing instructions and document types are refused everywhere', () => {
    for (const text of restricted) {
      expect(refusal(text + HEADER), `before: ${text}`).to.equal('restricted-xml')
      expect(inStream(text), `between: ${text}`).to.equal('restricted-xml')
      expect(inStanza(text), `inside: ${text}`).to.equal('restricted-xml')
      expect(inStanza(`<a>x${text}</a>`), `deep inside: ${text}`).to.equal('restricted-xml')
      expect(document(text + '<a/>'), `document: ${text}`).to.equal('restricted-xml')
    }
  })

  it('a comment is refused when its first bytes have come', () => {
    expect(conditionOf(() => new Log().write(`${HEADER}<a><!-`))).to.equal('restricted-xml')
  })

  it('entities other than the predefined five are refused, in text and in attributes', () => {
    for (const entity of ['&nbsp;', '&b;', '&Amp;', '&ü;']) {
      expect(inStanza(entity), entity).to.equal('restricted-xml')
      expect(inStream(`<message id='${entity}'/>`), entity).to.equal('restricted-xml')
    }
  })

  it('CDATA sections are text', () => {
    const el = single('<message><![CDATA[a<b>&amp;</x>"]]>c<![CDATA[]]><![CDATA[]] ]>]]></message>')
    expect(el.children).to.deep.equal(['a<b>&amp;</x>"c]] ]>'])
    expect(el.toString('jabber:client')).to.equal(
      '<message>a&lt;b&gt;&amp;amp;&lt;/x&gt;"c]] ]&gt;</message>',
    )
  })

  it('CDATA sections normalise line ends and refuse what is no character (XML 1.0 §2.2, §2.11)', () => {
    expect(single('<a><![CDATA[1\r\n2\r3\n4]]></a>').text()).to.equal('1\n2\n3\n4')
    expect(inStanza('<![CDATA[\u0001]]>')).to.equal('not-well-formed')
    expect(inStanza('<![CDATA[\ufffe]]>')).to.equal('not-well-formed')
  })

  it('a CDATA section of many kilobytes arrives whole, however it is cut', () => {
    const text = `${']'.repeat(3000)}é${'\r\n'.repeat(1000)}${'<'.repeat(100)}`
    const bytes = Buffer.from(`${HEADER}<a><![CDATA[${text}]]></a>`)
    for (const step of [1, 3, 1000]) {
      const log = new Log({ ...LIMITS, maxBytes: 100_000 })
      for (let at = 0; at < bytes.length; at += step) log.parser.write(bytes.subarray(at, at + step))
      expect(log.elements[0]?.text()).to.equal(text.replaceAll('\r\n', '\n'))
    }
  })
})

describe('parser: text', () => {
  it('XML 1.0 §4.6, §4.1: resolves the predefined entities and character references', () => {
    const text = '&lt;&gt;&amp;&apos;&quot;&#65;&#x42;&#x0000043;&#9;&#10;&#13;&#x1F600;&#x10ffff;&#xFFFD;'
    const resolved = '<>&\'"ABC\t\n\r\u{1f600}\u{10ffff}\ufffd'
    const el = single(`<a b='${text}'>${text}</a>`)
    expect(el.text()).to.equal(resolved)
    expect(el.attr('b')).to.equal(resolved)
  })

  it('XML 1.0 §4.1, WFC legal character: references to what is no character are not well-formed', () => {
    for (const reference of [
      '0',
      '8',
      '11',
      '31',
      '55296',
      '65534',
      '65535',
      '1114112',
      'x0',
      'xD800',
      'xDFFF',
      'xFFFE',
      'x110000',
      'x1FFFFFFFF',
    ]) {
      expect(inStanza(`&#${reference};`), reference).to.equal('not-well-formed')
      expect(inStream(`<a b='&#${reference};'/>`), reference).to.equal('not-well-formed')
    }
  })

  it('XML 1.0 §4.1: malformed references are not well-formed', () => {
    for (const text of [
      '&',
      '&&',
      '& ',
      '&;',
      '&#;',
      '&#x;',
      '&#X41;',
      '&#4 1;',
      '&#-1;',
      '&#1e1;',
      '&amp',
      '&amp ;',
      '& amp;',
      '&<',
      '&1;',
      '&a b;',
      'AT&T',
    ]) {
      expect(inStanza(text), text).to.equal('not-well-formed')
      expect(inStream(`<a b='${text}'/>`), text).to.equal('not-well-formed')
    }
  })

  it('references have a bound: leading zeros do not go on for ever', () => {
    expect(inStanza(`&#${'0'.repeat(20)}65;`)).to.equal(undefined)
    expect(inStanza(`&#${'0'.repeat(100)}65;`)).to.equal('policy-violation')
    expect(inStanza(`&#${'0'.repeat(5000)}`)).to.equal('policy-violation')
    expect(inStanza(`x &y ${'z'.repeat(5000)}`)).to.equal('not-well-formed')
  })

  it('XML 1.0 §2.4: "]]>" is not allowed in text, its parts are', () => {
    expect(inStanza(']]>')).to.equal('not-well-formed')
    expect(inStanza(`${'x'.repeat(2000)}]]>`)).to.equal('not-well-formed')
    expect(inStanza(`${']'.repeat(2000)}>`)).to.equal('not-well-formed')
    expect(single('<a>]] > ]> ]]&gt; ]</a>').text()).to.equal(']] > ]> ]]> ]')
    expect(single(`<a b=']]>'/>`).attr('b')).to.equal(']]>')
  })

  it('XML 1.0 §2.2: control characters, U+FFFE and U+FFFF are not well-formed anywhere', () => {
    for (const character of ['\0', '\u0001', '\b', '\v', '\f', '\u001f', '\ufffe', '\uffff']) {
      expect(inStanza(`x${character}y`), 'text').to.equal('not-well-formed')
      expect(inStream(`<a b='x${character}'/>`), 'attribute').to.equal('not-well-formed')
      expect(inStream(`<a${character}/>`), 'name').to.equal('not-well-formed')
      expect(inStream(`<a${character}b='1'/>`), 'tag').to.equal('not-well-formed')
    }
    expect(inStream('\0')).to.equal('not-well-formed')
  })

  it('XML 1.0 §2.11: line ends become line feeds', () => {
    expect(single('<a>1\r\n2\r3\n4\r\r5\n\r6</a>').text()).to.equal('1\n2\n3\n4\n\n5\n\n6')
    const long = 'x'.repeat(1023)
    expect(single(`<a>${long}\r\n${long}\r</a>`).text()).to.equal(`${long}\n${long}\n`)
  })

  it('keeps white space', () => {
    expect(single('<a> <b> x\t</b>\n</a>').children).to.deep.include(' ')
    expect(single('<a> <b> x\t</b>\n</a>').getChildText('b')).to.equal(' x\t')
  })

  it('long texts with references everywhere arrive whole, however they are cut', () => {
    const raw = 'ä&amp;]]\r\n&#x1F600;'.repeat(700)
    const bytes = Buffer.from(`${HEADER}<a>${raw}</a>`)
    for (const step of [1, 7, 1023, 1024, 1025]) {
      const log = new Log({ ...LIMITS, maxBytes: 100_000 })
      for (let at = 0; at < bytes.length; at += step) log.parser.write(bytes.subarray(at, at + step))
      expect(log.elements[0]?.text(), `steps of ${step}`).to.equal('ä&]]\n\u{1f600}'.repeat(700))
    }
  })

  it('§11.7, §4.9.3.1: only white space may stand between first-level elements', () => {
    for (const text of ['x', '&#32;', '&amp;', '<![CDATA[ ]]>', 'ü', ']]>']) {
      expect(inStream(text), text).to.equal('bad-format')
      expect(inStream(`<a/>${text}<b/>`), text).to.equal('bad-format')
    }
    expect(inStream(' \t\r\n<a/> \r<b/>\n')).to.equal(undefined)
  })

  it('XML 1.0 §2.1: text before the root is not well-formed', () => {
    for (const text of ['x', '&#32;', '<![CDATA[ ]]>', 'ü'])
      expect(refusal(text + HEADER), text).to.equal('not-well-formed')
  })
})

describe('parser: tags (XML 1.0 §3.1)', () => {
  it('accepts white space where it is allowed', () => {
    const el = single(`<a\n b = '1'\t\rc\n=\n"2" ><d\t/></a \r\n>`)
    expect({ ...el.attrs }).to.deep.equal({ b: '1', c: '2' })
  })

  it('refuses it where it is not', () => {
    for (const text of ['< a/>', '<a / >', '<a></ a>', '<a>< /a>', '<a/ >', '<\na/>']) {
      expect(inStream(text), text).to.equal('not-well-formed')
    }
  })

  it('WFC element type match: end tags match start tags, prefix included', () => {
    for (const text of [
      '</a>',
      '<a></b>',
      '<a></A>',
      '<a></ab>',
      '<ab></a>',
      '<a><b></a></b>',
      `<x:a xmlns:x='u' xmlns:y='u'></y:a>`,
      '<a></a b>',
      '<a></a/>',
    ]) {
      expect(inStream(text), text).to.equal('not-well-formed')
    }
    expect(inStream('</stream:strea>')).to.equal('not-well-formed')
    expect(inStream('</stream:streams>')).to.equal('not-well-formed')
    expect(inStream('</stream>')).to.equal('not-well-formed')
  })

  it('attributes have a value in quotes, and white space before them', () => {
    for (const tag of [
      `<a b>`,
      `<a b/>`,
      `<a b=>`,
      `<a b=1>`,
      `<a b=1/>`,
      `<a b='1'c='2'/>`,
      `<a b=='1'/>`,
      `<a ='1'/>`,
      `<a b '1'/>`,
      `<a 'b'/>`,
      `<a b='1" />`,
      `<a b="1"'/>`,
      `<a/b='1'>`,
    ]) {
      expect(inStream(`${tag}</a>`), tag).to.equal('not-well-formed')
    }
  })

  it('WFC no < in attribute values; ">" and the other quote are fine', () => {
    expect(inStream(`<a b='<'/>`)).to.equal('not-well-formed')
    expect(single(`<a b='>"' c=">'"/>`).attrs).to.include({ b: '>"', c: ">'" })
    expect(single(`<a b='&lt;'/>`).attr('b')).to.equal('<')
  })

  it('WFC unique attributes: none twice, also not with another prefix of the same namespace', () => {
    expect(inStream(`<a b='1' b='1'/>`)).to.equal('not-well-formed')
    expect(inStream(`<a b='1' c='2' d='3' b='4'/>`)).to.equal('not-well-formed')
    expect(inStream(`<a xmlns='u' xmlns='u'/>`)).to.equal('not-well-formed')
    expect(inStream(`<a xmlns:p='u' xmlns:p='v'/>`)).to.equal('not-well-formed')
    expect(inStream(`<a xml:lang='de' xml:lang='en'/>`)).to.equal('not-well-formed')
    expect(inStream(`<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='1'/>`)).to.equal('not-well-formed')
    expect(inStream(`<a xmlns:p='u' xmlns:q='v' p:b='1' q:b='1' b='1'/>`)).to.equal(undefined)
    const many = Array.from({ length: 18 }, (_, i) => `b${i}='1'`).join(' ')
    expect(inStream(`<a ${many}/>`)).to.equal(undefined)
    expect(inStream(`<a ${many} b7='1'/>`)).to.equal('not-well-formed')
  })

  it('§3.3.3: attribute values have spaces for white space, but not for references to it', () => {
    expect(single(`<a b=' 1\t2\n3\r\n4\r5 '/>`).attr('b')).to.equal(' 1 2 3 4 5 ')
    expect(single(`<a b='&#9;&#10;&#13;'/>`).attr('b')).to.equal('\t\n\r')
  })

  it('§2.3: names are made of name characters', () => {
    for (const name of [
      'a',
      '_a',
      'a-b',
      'a.b',
      'a1',
      'A·',
      'ü',
      '名',
      'a\u0300',
      '\u{10000}',
      'é'.repeat(50),
    ]) {
      expect(single(`<${name} ${name}='1'/>`).attr(name), name).to.equal('1')
      expect(single(`<${name}></${name}>`).name, name).to.equal(name)
    }
    for (const name of [
      '1a',
      '-a',
      '.a',
      '·',
      '\u0300',
      'a!',
      'a;',
      'a,',
      'a\u00d7',
      '\u00f7',
      'a\u037e',
      'a\u2000',
      '\u203f',
      'a\u3000',
      'a\u{f0000}',
      'a@',
      'a*',
      'a\u007f',
      'a(',
      'a{',
      '$',
    ]) {
      expect(inStream(`<${name}/>`), name).to.equal('not-well-formed')
      expect(inStream(`<x ${name}='1'/>`), name).to.equal('not-well-formed')
    }
  })

  it('knows a name again only when it is the same name', () => {
    // The same few bytes decide where a name is kept; here they are equal and the rest differs.
    const names = Array.from(
      { length: 200 },
      (_, i) => `name${String(i).padStart(4, '0').split('').join('x')}abcdef`,
    )
    for (const name of [...names, ...names])
      expect(single(`<${name} ${name}='1' xmlns='urn:${name}'/>`).toString()).to.equal(
        `<${name} xmlns='urn:${name}' ${name}='1'/>`,
      )
  })
})

describe('parser: namespaces (Namespaces in XML 1.0; RFC 6120 §4.8, §11.3)', () => {
  it('§6.2: children inherit the default namespace, "" ends it', () => {
    const el = single(`<a><b xmlns='urn:b'><c/><d xmlns=''><e/></d></b><f/></a>`)
    const b = el.getChild('b', 'urn:b')
    expect(b?.getChild('c')?.ns).to.equal('urn:b')
    expect(b?.getChild('d', '')?.getChild('e')?.ns).to.equal('')
    expect(el.getChild('f')?.ns).to.equal('jabber:client')
  })

  it('§6.1: prefixes hold for the element that declares them and what is inside', () => {
    const el = single(`<a xmlns:p='urn:1'><p:b xmlns:p='urn:2'><p:c/></p:b><p:d/></a>`)
    expect(el.getChild('b', 'urn:2')?.getChild('c', 'urn:2')).not.to.equal(undefined)
    expect(el.getChild('d', 'urn:1')).not.to.equal(undefined)
    expect(inStream(`<a><b xmlns:p='u'/><p:c/></a>`)).to.equal('not-well-formed')
    expect(inStream(`<a xmlns:p='u'/><p:c/>`)).to.equal('not-well-formed')
  })

  it('§6.2: attributes without a prefix have no namespace; with one they are named {ns}local', () => {
    const el = single(`<a xmlns='urn:a' xmlns:p='urn:p' b='1' p:b='2' xml:lang='de'/>`)
    expect({ ...el.attrs }).to.deep.equal({ b: '1', '{urn:p}b': '2', 'xml:lang': 'de' })
  })

  it('§5: undeclared prefixes are not namespace-well-formed', () => {
    for (const text of ['<p:a/>', `<a p:b='1'/>`, '<a><p:b/></a>', `<xmlns:a/>`, `<a><xmlns:b/></a>`]) {
      expect(inStream(text), text).to.equal('not-well-formed')
    }
  })

  it('§3: xml and xmlns are reserved', () => {
    for (const declaration of [
      `xmlns:xml='urn:x'`,
      `xmlns:xmlns='urn:x'`,
      `xmlns:xmlns='${NS.XMLNS}'`,
      `xmlns:p='${NS.XML}'`,
      `xmlns:p='${NS.XMLNS}'`,
      `xmlns='${NS.XML}'`,
      `xmlns='${NS.XMLNS}'`,
      `xmlns:p='&#104;ttp://www.w3.org/2000/xmlns/'`,
    ]) {
      expect(inStream(`<a ${declaration}/>`), declaration).to.equal('not-well-formed')
    }
    expect(inStream(`<a xmlns:xml='${NS.XML}' xml:lang='de'/>`)).to.equal(undefined)
  })

  it('§2.2: a prefix cannot be undeclared', () => {
    expect(inStream(`<a xmlns:p=''/>`)).to.equal('not-well-formed')
  })

  it('§4: qualified names have at most one colon, with a name on both sides', () => {
    for (const name of [':a', 'a:', 'a:b:c', ':', 'p:1', '1:a', 'p:-']) {
      expect(inStream(`<x xmlns:a='u' xmlns:p='u'><${name}/></x>`), name).to.equal('not-well-formed')
      expect(inStream(`<x xmlns:a='u' xmlns:p='u' ${name}='1'/>`), name).to.equal('not-well-formed')
    }
  })

  it('namespace names are compared after references are resolved', () => {
    expect(single(`<a xmlns='urn&#58;x'/>`).ns).to.equal('urn:x')
    expect(single(`<a xmlns='urn:ü'/>`).ns).to.equal('urn:ü')
  })
})
