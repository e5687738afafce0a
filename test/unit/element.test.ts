/** server/xmpp/element.ts: reading, changing and writing elements. XML 1.0, Namespaces in XML 1.0, RFC 6120 §4.8, §11. */
import { inspect } from 'node:util'
import { expect } from 'chai'
import fc from 'fast-check'
import { Element, el, escapeAttr, escapeText, type Node, xml } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { single } from '../helpers/parsing.ts'

const A = 'urn:example:a'
const B = 'urn:example:b'

describe('element: reading', () => {
  const message = parseXml(
    `<message xmlns='jabber:client' to='a' xml:lang='de' xmlns:p='${A}' p:x='1'>` +
      `one<body>text</body>two<body xml:lang='en'>more</body><x xmlns='${A}'/><x xmlns='${B}'>b</x></message>`,
  )

  it('attr() and attrs', () => {
    expect(message.attr('to')).to.equal('a')
    expect(message.attr('xml:lang')).to.equal('de')
    expect(message.attr(`{${A}}x`)).to.equal('1')
    for (const absent of ['from', 'x', 'p:x', 'lang', 'xmlns', 'xmlns:p', 'toString', '__proto__']) {
      expect(message.attr(absent), absent).to.equal(undefined)
      expect(message.attrs[absent], absent).to.equal(undefined)
    }
    expect({ ...message.attrs }).to.deep.equal({ to: 'a', 'xml:lang': 'de', [`{${A}}x`]: '1' })
    expect(message.attrs).to.equal(message.attrs)
  })

  it('attributes may have the names of things that objects have', () => {
    const odd = parseXml(`<a __proto__='1' constructor='2' toString='3'/>`)
    expect(odd.attr('__proto__')).to.equal('1')
    expect(odd.attrs['constructor']).to.equal('2')
    expect(odd.withAttrs({ b: '4' }).toString()).to.equal(
      `<a __proto__='1' constructor='2' toString='3' b='4'/>`,
    )
  })

  it('is()', () => {
    expect(message.is('message')).to.equal(true)
    expect(message.is('message', NS.CLIENT)).to.equal(true)
    expect(message.is('message', NS.SERVER)).to.equal(false)
    expect(message.is('iq')).to.equal(false)
  })

  it('children of the same namespace are found without naming it', () => {
    expect(message.getChild('body')?.text()).to.equal('text')
    expect(message.getChild('x')).to.equal(undefined)
    expect(message.getChild('x', B)?.text()).to.equal('b')
    expect(message.getChildren('body').map((body) => body.text())).to.deep.equal(['text', 'more'])
    expect(message.getChildren('x', A)).to.have.length(1)
    expect(message.getChildText('body')).to.equal('text')
    expect(message.getChildText('x', A)).to.equal('')
    expect(message.getChildText('subject')).to.equal(undefined)
  })

  it('elements, firstElement() and text()', () => {
    expect(message.elements.map((child) => child.name)).to.deep.equal(['body', 'body', 'x', 'x'])
    expect(message.firstElement()?.name).to.equal('body')
    expect(message.text()).to.equal('onetwo')
    const empty = el('a', A)
    expect([empty.elements, empty.firstElement(), empty.text(), empty.children]).to.deep.equal([
      [],
      undefined,
      '',
      [],
    ])
    expect(el('a', A, {}, 'text').elements).to.deep.equal([])
  })

  it('equals() looks at names, attributes in any order, and content', () => {
    const one = el('a', A, { b: '1', c: '2' }, 'x', 'y', el('d', B))
    expect(one.equals(el('a', A, { c: '2', b: '1' }, 'xy', el('d', B)))).to.equal(true)
    for (const other of [
      el('b', A, { b: '1', c: '2' }, 'xy', el('d', B)),
      el('a', B, { b: '1', c: '2' }, 'xy', el('d', B)),
      el('a', A, { b: '1', c: '3' }, 'xy', el('d', B)),
      el('a', A, { b: '1' }, 'xy', el('d', B)),
      el('a', A, { b: '1', d: '2' }, 'xy', el('d', B)),
      el('a', A, { b: '1', c: '2' }, el('d', B), 'xy'),
      el('a', A, { b: '1', c: '2' }, 'xy', el('d', A)),
      el('a', A, { b: '1', c: '2' }, 'xy'),
    ]) {
      expect(one.equals(other), other.toString()).to.equal(false)
    }
  })

  it('is shown as XML', () => {
    expect(inspect({ a: el('a', A) })).to.equal(`{ a: <a xmlns='${A}'/> }`)
  })
})

describe('element: building', () => {
  it('el() skips what is undefined', () => {
    const built = el('query', A, { node: 'x', other: undefined }, undefined, el('item', A), 'text')
    expect(built.toString()).to.equal(`<query xmlns='${A}' node='x'><item/>text</query>`)
    expect(el('a', '').toString()).to.equal('<a/>')
  })

  it('xml() is the builder of @xmpp/xml: children without xmlns inherit', () => {
    const iq = xml(
      'iq',
      { type: 'get', xmlns: NS.CLIENT },
      xml('query', { xmlns: A }, xml('item', { jid: undefined }, xml('x'))),
      xml('y', null),
    )
    expect(iq.toString()).to.equal(
      `<iq xmlns='jabber:client' type='get'><query xmlns='${A}'><item><x/></item></query><y/></iq>`,
    )
    expect(iq.getChild('query', A)?.getChild('item')?.getChild('x')?.ns).to.equal(A)
    expect(iq.getChild('y')?.ns).to.equal(NS.CLIENT)
    expect(xml('message', { to: 'a' }, xml('body', {}, 'x')).toString()).to.equal(
      `<message to='a'><body>x</body></message>`,
    )
  })

  it('xml() knows the prefix stream and no other', () => {
    expect(xml('stream:features', {}, xml('a', { xmlns: A })).toString(NS.CLIENT)).to.equal(
      `<stream:features><a xmlns='${A}'/></stream:features>`,
    )
    expect(() => xml('p:a')).to.throw(TypeError)
  })

  it('names that XML forbids are refused', () => {
    for (const name of ['', '1', 'a b', 'a>', 'a:b', 'a=', "a'", '\ud800', 'xmlns:a', '{u}', '{}a', '{u}1']) {
      expect(() => el(name, A), name).to.throw(TypeError)
      expect(() => el('a', A, { [name]: '1' }), name).to.throw(TypeError)
      expect(() => el('a', A).withAttrs({ [name]: '1' }), name).to.throw(TypeError)
    }
    expect(() => el('a', A, { xmlns: B })).to.throw(TypeError)
  })

  it('attributes of the XML namespace are named with the prefix xml', () => {
    expect(el('a', '', { [`{${NS.XML}}lang`]: 'de' }).attr('xml:lang')).to.equal('de')
  })
})

describe('element: changing makes new elements', () => {
  const base = el('message', NS.CLIENT, { to: 'a', id: '1' }, el('body', NS.CLIENT, {}, 'x'), el('x', A))

  it('withAttrs() sets, replaces, deletes', () => {
    expect(base.withAttrs({ to: 'b', from: 'c', id: undefined, type: undefined }).attrs).to.deep.include({
      to: 'b',
      from: 'c',
    })
    expect(base.withAttrs({ id: undefined }).attr('id')).to.equal(undefined)
    expect(base.attrs).to.deep.include({ to: 'a', id: '1' })
    expect(base.withAttrs({ to: 'b' }).children).to.equal(base.children)
  })

  it('withChildren(), append(), without()', () => {
    expect(base.withChildren(['y']).toString(NS.CLIENT)).to.equal(`<message to='a' id='1'>y</message>`)
    expect(base.append(el('y', B), 'z').children).to.have.length(4)
    expect(base.without((child) => child.name === 'x').toString(NS.CLIENT)).to.equal(
      `<message to='a' id='1'><body>x</body></message>`,
    )
    expect(base.without((child) => child.name === 'y')).to.equal(base)
    expect(base.children).to.have.length(2)
  })

  it('RFC 6120 §4.8.3: withNs() moves what inherited the namespace, and nothing below extension elements', () => {
    const forwarded = `<forwarded xmlns='${A}'><message xmlns='jabber:client'><body/></message></forwarded>`
    const text = `<message><body>x<y/></body>${forwarded}</message>`
    const tree = el('message', NS.CLIENT, {}, ...single(text).children)
    for (const stanza of [single(text), tree]) {
      const moved = stanza.withNs(NS.SERVER)
      expect(moved.toString(NS.SERVER)).to.equal(text)
      expect(moved.getChild('body')?.getChild('y')?.ns).to.equal(NS.SERVER)
      expect(moved.getChild('forwarded', A)?.getChild('message', NS.CLIENT)?.getChild('body')?.ns).to.equal(
        NS.CLIENT,
      )
      expect(moved.withNs(NS.CLIENT).equals(stanza)).to.equal(true)
      expect(stanza.getChild('body')?.ns).to.equal(NS.CLIENT)
      expect(parseXml(moved.toString()).equals(moved)).to.equal(true)
      expect(
        parseXml(moved.withAttrs({ a: '1' }).append(el('z', NS.SERVER)).toString()).getChild('z'),
      ).not.to.equal(undefined)
    }
    expect(tree.withNs(NS.CLIENT)).to.equal(tree)
  })

  it('withNs() there and back leaves a child alone that was in the other namespace before', () => {
    const stanza = single(`<message><body><x xmlns='jabber:server'/></body></message>`)
    const there = stanza.withNs(NS.SERVER)
    expect(parseXml(there.toString()).equals(there)).to.equal(true)
    const back = there.withNs(NS.CLIENT)
    expect(parseXml(back.toString()).equals(back)).to.equal(true)
  })
})

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
    const stanza = single(`<message to="a" id='1'>${INNER}</message>`)
    expect(stanza.withAttrs({ from: 'b' }).toString(NS.CLIENT)).to.equal(
      `<message to='a' id='1' from='b'>${INNER}</message>`,
    )
    expect(stanza.withNs(NS.SERVER).toString(NS.SERVER)).to.equal(`<message to='a' id='1'>${INNER}</message>`)
    expect(stanza.toString()).to.equal(`<message xmlns='jabber:client' to='a' id='1'>${INNER}</message>`)
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
