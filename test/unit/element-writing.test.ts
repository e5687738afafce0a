/** server/xmpp/element.ts: writing elements, and using text from the wire again. XML 1.0, Namespaces in XML 1.0, RFC 6120 §4.8. */
import { inspect } from 'node:util'
import { expect } from 'chai'
import fc from 'fast-check'
import { Element, el, escapeAttr, escapeText, type Node } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { single } from '../helpers/parsing.ts'

const A = 'urn:example:a'
const B = 'urn:example:b'

describe('element: writing', () => {
  it('leaves out xmlns where it is the default namespace already', () => {
    const tree = el('a', A, {}, el('b', A), el('c', B, {}, el('d', A)), el('e', '', {}, el('f', '')))
    expect(tree.toString()).to.equal(
      `<a xmlns='${A}'><b/><c xmlns='${B}'><d xmlns='${A}'/></c><e xmlns=''><f/></e></a>`,
    )
    expect(tree.toString(A)).to.equal(`<a><b/><c xmlns='${B}'><d xmlns='${A}'/></c><e xmlns=''><f/></e></a>`)
    expect(el('a', '').toString(A)).to.equal(`<a xmlns=''/>`)
  })

  it('XML 1.0 §2.4, §3.3.3: escapes what would not come back as it was', () => {
    const odd = `<>&'"\t\n\r]]>`
    expect(escapeText(odd)).to.equal(`&lt;&gt;&amp;'"\t\n&#13;]]&gt;`)
    expect(escapeAttr(odd)).to.equal(`&lt;&gt;&amp;&apos;&quot;&#9;&#10;&#13;]]&gt;`)
    const element = el('a', A, { b: odd }, odd)
    expect(parseXml(element.toString()).equals(element)).to.equal(true)
  })

  it('XML 1.0 §2.2: what is no character becomes U+FFFD', () => {
    for (const bad of [
      '\0',
      '\u0001',
      '\b',
      '\v',
      '\f',
      '\u000e',
      '\u001f',
      '\ufffe',
      '\uffff',
      '\ud800',
      '\udfff',
      '\udc00\ud800',
    ]) {
      const element = parseXml(el('a', A, { b: `x${bad}` }, `${bad}y`).toString())
      expect(element.attr('b'), inspect(bad)).to.match(/^x\ufffd+$/)
      expect(element.text(), inspect(bad)).to.match(/^\ufffd+y$/)
    }
    expect(escapeText('😀\u{10ffff}\u0085')).to.equal('😀\u{10ffff}\u0085')
  })

  it('Namespaces §6.2: attributes of a namespace get a prefix that is declared', () => {
    const element = el(
      'a',
      A,
      { [`{${A}}x`]: '1', [`{${B}}x`]: '2', x: '3', 'xml:lang': 'de' },
      el('b', A, { '{u&v}y': '4' }),
    )
    expect(parseXml(element.toString()).equals(element)).to.equal(true)
    expect(element.toString()).to.contain(" xml:lang='de'")
  })

  it('RFC 6120 §4.8.5: elements of the stream namespace have the prefix stream of the header', () => {
    const error = el('error', NS.STREAM, {}, el('reset', NS.STREAMS), el('more', NS.STREAM, {}, el('x', A)))
    expect(error.toString(NS.CLIENT)).to.equal(
      `<stream:error><reset xmlns='${NS.STREAMS}'/><stream:more><x xmlns='${A}'/></stream:more></stream:error>`,
    )
    expect(el('features', NS.STREAM, { a: '1' }, el('b', NS.CLIENT)).toString(NS.CLIENT)).to.equal(
      `<stream:features a='1'><b/></stream:features>`,
    )
  })

  it('RFC 7395 §3.3.3: documents of their own declare it', () => {
    const features = el('features', NS.STREAM, {}, el('bind', A))
    const text = `<stream:features xmlns:stream='${NS.STREAM}'><bind xmlns='${A}'/></stream:features>`
    expect(features.toString()).to.equal(text)
    expect(features.toString(NS.CLIENT, true)).to.equal(text)
    expect(features.toString(undefined, false)).not.to.contain('xmlns:stream')
    expect(parseXml(text).equals(features)).to.equal(true)
  })

  it('a stream element inside of another one does not rely on the prefix', () => {
    const stanza = el('message', NS.CLIENT, {}, el('error', NS.STREAM, {}, el('x', NS.STREAM)))
    expect(stanza.toString(NS.CLIENT)).to.equal(`<message><error xmlns='${NS.STREAM}'><x/></error></message>`)
    expect(parseXml(stanza.toString()).equals(stanza)).to.equal(true)
  })
})

describe('element: text from the wire is used again', () => {
  /** Text that a tree would be written differently for: so it shows whether the text was kept. */
  const INNER = `<body >h&#105;</body ><x:y  xmlns:x="${A}"><x:z/></x:y>`

  it('relaying changes the start tag only', () => {
    const stanza = single(`<message  to="a" id='1' >${INNER}</message>`)
    const relayed = `<message  to="a" id='1'  from='b&amp;'>${INNER}</message>`
    expect(stanza.withAttrs({ from: 'b&' }).toString(NS.CLIENT)).to.equal(relayed)
    expect(stanza.withNs(NS.SERVER).toString(NS.SERVER)).to.equal(
      `<message  to="a" id='1' >${INNER}</message>`,
    )
    expect(stanza.withAttrs({ to: 'c', id: undefined }).toString(NS.CLIENT)).to.equal(
      `<message to='c'>${INNER}</message>`,
    )
    expect(stanza.toString()).to.equal(`<message xmlns='jabber:client'  to="a" id='1' >${INNER}</message>`)
  })

  it('a start tag with declarations, prefixes or anything to decode is written anew', () => {
    for (const attributes of [
      `xmlns:p='${A}' b="1"`,
      `xmlns='${B}' b="1"`,
      `xmlns:p='${A}' p:b="1"`,
      `b="&#65;"`,
      `b="ü"`,
      `b="\n"`,
    ]) {
      const stanza = single(`<message ${attributes}><body/></message>`)
      expect(stanza.toString()).not.to.contain('"')
      expect(
        parseXml(stanza.withAttrs({ c: '2', [`{${B}}c`]: '3' }).toString()).equals(
          stanza.withAttrs({ c: '2', [`{${B}}c`]: '3' }),
        ),
      ).to.equal(true)
    }
  })

  it('append() keeps it and adds', () => {
    const stamped = single(`<message>${INNER}</message>`).append(
      el('stanza-id', A, { id: '1' }),
      'é<',
      el('body', NS.CLIENT),
    )
    expect(stamped.toString(NS.CLIENT)).to.equal(
      `<message>${INNER}<stanza-id xmlns='${A}' id='1'/>é&lt;<body/></message>`,
    )
    expect(parseXml(stamped.toString()).equals(stamped)).to.equal(true)
  })

  it('works in documents, inside of other elements, and beyond ASCII', () => {
    const inner = `${INNER}é😀<ü a='ö'/>`
    const stanza = parseXml(`<message xmlns='jabber:client'>${inner}</message>`)
    const carbon = el('sent', A, {}, el('forwarded', B, {}, stanza))
    expect(carbon.toString()).to.equal(
      `<sent xmlns='${A}'><forwarded xmlns='${B}'><message xmlns='jabber:client'>${inner}</message></forwarded></sent>`,
    )
    expect(parseXml(carbon.toString()).equals(carbon)).to.equal(true)
  })

  it('is not used where it would mean something else', () => {
    for (const text of [
      `<message xmlns:p='${A}'><p:x/></message>`, // the prefix would be lost
      `<message xmlns:p='${A}'><x p:y='1'/></message>`,
      '<message><stream:x/></message>', // from the stream header
      `<c:message xmlns:c='jabber:client'><c:body/></c:message>`, // RFC 6120 §4.8.5: no prefixes for content namespaces
      `<message><c:body xmlns:c='jabber:client'/></message>`,
      `<message><x xmlns='${A}'><c:message xmlns:c='jabber:server'/></x></message>`,
      `<message><body xmlns='jabber:client' >x</body></message>`, // would not follow into another namespace
      `<message><p:x xmlns:p='${A}'><body /></p:x></message>`, // would follow
      '<message><![CDATA[x]]></message>',
      `<stream:error><x xmlns='${A}' ></x></stream:error>`,
    ]) {
      const stanza = single(text)
      const moved = stanza.withNs(NS.SERVER).withAttrs({ a: '1' })
      const written = moved.toString()
      expect(written, text).not.to.match(/[< ][cp]:| >|CDATA|<stream:x/)
      expect(parseXml(written).equals(moved), text).to.equal(true)
    }
  })

  it('without() and withChildren() write what is left', () => {
    const stanza = single(`<message>${INNER}<a/></message>`)
    const rest = stanza.without((child) => child.name === 'a')
    expect(rest.toString(NS.CLIENT)).to.equal(`<message><body>hi</body><y xmlns='${A}'><z/></y></message>`)
    expect(stanza.withChildren([]).toString(NS.CLIENT)).to.equal('<message/>')
  })
})

describe('element: properties', () => {
  const NAMES = ['a', 'body', 'x-y', 'ü', 'stream']
  const SPACES = ['', A, B, NS.CLIENT, NS.SERVER, NS.STREAM]
  const attrs = fc.dictionary(
    fc.constantFrom('id', 'xml:lang', `{${A}}b`, `{${B}}b`, 'to'),
    fc.string({ unit: 'binary' }),
  )
  const { element } = fc.letrec<{ element: Element; node: Node }>((tie) => ({
    node: fc.oneof({ maxDepth: 4 }, fc.string({ unit: 'grapheme' }), tie('element')),
    element: fc
      .tuple(
        fc.constantFrom(...NAMES),
        fc.constantFrom(...SPACES),
        attrs,
        fc.array(tie('node'), { maxLength: 4 }),
      )
      .map(([name, ns, given, children]) => el(name, ns, given, ...children)),
  }))

  /** As it comes out of XML. */
  const clean = (node: Element): Element => parseXml(node.toString())

  it('what is written is read as the same, in every context', () => {
    fc.assert(
      fc.property(element, fc.constantFrom(...SPACES.filter((ns) => ns !== '')), (any, context) => {
        const tree = clean(any)
        expect(clean(tree).equals(tree)).to.equal(true)
        expect(tree.toString()).to.equal(clean(tree).withAttrs({}).toString())
        const inside = parseXml(
          `<r xmlns='${context}' xmlns:stream='${NS.STREAM}'>${tree.toString(context)}</r>`,
        )
        expect(inside.firstElement()?.equals(tree)).to.equal(true)
      }),
    )
  })

  it('kept text and tree agree whatever is done to the element', () => {
    const step = fc.oneof(
      fc.constantFrom(...SPACES).map((ns) => (e: Element) => e.withNs(ns)),
      attrs.map((given) => (e: Element) => e.withAttrs(given)),
      element.map((child) => (e: Element) => e.append(clean(child))),
      fc.constantFrom(...NAMES).map((name) => (e: Element) => e.without((child) => child.name === name)),
      fc.constantFrom(...SPACES).map((ns) => (e: Element) => (e.toString(ns), e)),
    )
    fc.assert(
      fc.property(element, fc.array(step, { maxLength: 6 }), (any, steps) => {
        const last = steps.reduce((e, apply) => apply(e), clean(any))
        expect(parseXml(last.toString()).equals(clean(rebuilt(last)))).to.equal(true)
      }),
    )
  })

  /** The same tree without any kept text. */
  function rebuilt(e: Element): Element {
    return new Element(
      e.name,
      e.ns,
      e.flat,
      e.children.map((child) => (typeof child === 'string' ? child : rebuilt(child))),
    )
  }
})
