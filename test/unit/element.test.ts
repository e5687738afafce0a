/** server/xmpp/element.ts: reading, building and changing elements. RFC 6120 §4.8.3. */
import { inspect } from 'node:util'
import { expect } from 'chai'
import { el, xml } from '../../server/xmpp/element.ts'
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
