/** server/xmpp/parser.ts: what is XML and what is not. RFC 6120 §11.1, §11.3, XML 1.0 fifth edition, Namespaces in XML 1.0. */
import { expect } from 'chai'
import { NS } from '../../server/xmpp/ns.ts'
import {
  conditionOf,
  HEADER,
  inDocument,
  inStanza,
  inStream,
  LIMITS,
  Log,
  refusal,
  single,
} from '../helpers/parsing.ts'

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
      expect(inDocument(text + '<a/>'), `document: ${text}`).to.equal('restricted-xml')
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
      const log = new Log({ ...LIMITS, maxBytes: 100_000 }).write(bytes, step)
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
      const log = new Log({ ...LIMITS, maxBytes: 100_000 }).write(bytes, step)
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
