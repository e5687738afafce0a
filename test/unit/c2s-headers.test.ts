/** RFC 6120 §4.7 to §4.9: stream headers of clients, and the errors about them. */
import { expect } from 'chai'
import type { AnyModule } from '../../server/loader.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { type HeaderFields, header, openFrame, read, readFrames } from '../helpers/raw-stream.ts'
import { NS_STREAM } from '../helpers/xml.ts'

/** Sends the beginning of a stream; what comes back. */
async function begin(h: TestHost, text: string) {
  const stream = h.stream()
  return { ...read(await stream.send(text)), stream }
}

/** Logs the stream in as romeo, and asks for a new header. */
const login: AnyModule = {
  name: 'login',
  summary: 'test',
  specs: [],
  setup: (ctx) =>
    ctx.streamFeature({
      ns: 'urn:test:login',
      streams: ['c2s'],
      needs: [],
      forbids: ['authenticated'],
      advertise: () => undefined,
      handle: () => ({ identity: ctx.hostJid.bare, next: 'restart' }),
    }),
}

describe('c2s: the response header (RFC 6120 §4.7)', () => {
  it('has from, id, version and language; the features follow (§4.3.2)', async () => {
    await using h = await testHost({ modules: [] })
    const { header: ours, elements, ended } = await begin(h, header())
    expect(ours?.attrs).to.include({
      from: 'example.org',
      version: '1.0',
      'xml:lang': 'en',
      xmlns: 'jabber:client',
    })
    expect(ours?.attrs['id']).to.match(/^[\w-]{20,}$/)
    expect(elements.map((e) => e.getName())).to.deep.equal(['features'])
    expect(ended).to.equal(false)
  })

  it('begins with an XML declaration and uses the prefix stream (§4.8.5, §11.5)', async () => {
    await using h = await testHost({ modules: [] })
    const text = await h.stream().send(header())
    expect(text).to.match(/^<\?xml version='1\.0'\?><stream:stream .*><stream:features\/>$/)
  })

  it('repeats the bare address of from as to (§4.7.2), and has no to where there was no from', async () => {
    await using h = await testHost({ modules: [] })
    expect((await begin(h, header({ from: 'Romeo@Example.ORG/orchard' }))).header?.attrs['to']).to.equal(
      'romeo@example.org',
    )
    expect((await begin(h, header())).header?.attrs).not.to.have.property('to')
  })

  it('has no to after login either, where there was no from (§4.7.2)', async () => {
    await using h = await testHost({ modules: [login] })
    const stream = h.stream()
    await stream.send(header())
    await stream.send("<x xmlns='urn:test:login'/>")
    expect(read(await stream.send(header())).header?.attrs).not.to.have.property('to')
  })

  it('has an id that is new in each stream, also after a restart, and never that of the client (§4.3.3, §4.7.3)', async () => {
    await using h = await testHost({ modules: [login] })
    const ids = new Set<string | undefined>()
    for (let i = 0; i < 20; i++) {
      const stream = h.stream()
      ids.add(read(await stream.send(header({ id: 'mine' }))).header?.attrs['id'])
      await stream.send("<x xmlns='urn:test:login'/>")
      ids.add(read(await stream.send(header({ id: 'mine' }))).header?.attrs['id'])
    }
    expect(ids.size).to.equal(40)
    expect(ids.has('mine')).to.equal(false)
  })

  it('names the language of the texts of this server, not the one that was asked for (§4.7.4)', async () => {
    await using h = await testHost({ modules: [] })
    expect((await begin(h, header({ 'xml:lang': 'de-CH' }))).header?.attrs['xml:lang']).to.equal('en')
    expect((await begin(h, header({ 'xml:lang': 'en-GB' }))).header?.attrs['xml:lang']).to.equal('en')
  })

  it('remembers the language for stanzas (§4.7.4)', async () => {
    await using h = await testHost({ modules: [], accounts: ['romeo'] })
    const stream = h.stream()
    await stream.send(header({ 'xml:lang': 'cs' }))
    expect(stream.session.lang).to.equal('cs')
  })

  for (const version of ['1.0', '1.1', '1.13', '01.0'])
    it(`is version 1.0 for version ${version} (§4.7.5)`, async () => {
      await using h = await testHost({ modules: [] })
      const { header: ours, error } = await begin(h, header({ version }))
      expect(ours?.attrs['version']).to.equal('1.0')
      expect(error).to.equal('')
    })

  it('accepts a client that qualifies each element instead of declaring a content namespace (§4.8.2)', async () => {
    await using h = await testHost({ modules: [] })
    const { elements } = await begin(
      h,
      "<stream to='example.org' version='1.0' xmlns='http://etherx.jabber.org/streams'>",
    )
    expect(elements.map((e) => e.getName())).to.deep.equal(['features'])
  })

  it('takes the host in any spelling of the same domain (§4.7.2)', async () => {
    await using h = await testHost({ modules: [] })
    expect((await begin(h, header({ to: 'EXAMPLE.org' }))).error).to.equal('')
  })
})

/** What is wrong, the header, the condition. */
const ERRORS: readonly (readonly [what: string, text: string, condition: string])[] = [
  ['another root element (§4.9.3.1)', header().replace('stream:stream', 'stream:river'), 'bad-format'],
  [
    'another stream namespace (§4.8.1, §4.9.3.10)',
    header({ 'xmlns:stream': 'http://wrong.example.org/' }),
    'invalid-namespace',
  ],
  ['no stream namespace (§4.8.1)', "<stream to='example.org' version='1.0'>", 'invalid-namespace'],
  ['a content namespace nobody knows (§4.9.3.10)', header({ xmlns: 'jabber:wrong' }), 'invalid-namespace'],
  ['the content namespace of servers (§4.8.3)', header({ xmlns: 'jabber:server' }), 'invalid-namespace'],
  [
    'the content namespace of components (§4.8.3)',
    header({ xmlns: 'jabber:component:accept' }),
    'invalid-namespace',
  ],
  [
    'the stream namespace as content namespace (§4.8.2)',
    header({ xmlns: 'http://etherx.jabber.org/streams' }),
    '',
  ],
  ['an undeclared prefix (§4.9.3.13)', header({ 'xmlns:stream': undefined }), 'not-well-formed'],
  ['a host that is not ours (§4.9.3.6)', header({ to: 'example.net' }), 'host-unknown'],
  ['no host (§4.7.2)', header({ to: undefined }), 'host-unknown'],
  ['an account as host (§4.9.3.6)', header({ to: 'romeo@example.org' }), 'host-unknown'],
  ['a host that is no address (§4.9.3.7)', header({ to: '@' }), 'improper-addressing'],
  ['from at another domain (§4.9.3.9)', header({ from: 'romeo@example.net' }), 'invalid-from'],
  ['from that is no address (§4.9.3.9)', header({ from: '@' }), 'invalid-from'],
  ['no version: 0.9, which has no features (§4.7.5)', header({ version: undefined }), 'unsupported-version'],
  ['version 0.9 (§4.9.3.25)', header({ version: '0.9' }), 'unsupported-version'],
  ['version 2.0 (§4.9.3.25)', header({ version: '2.0' }), 'unsupported-version'],
  ['version 11.0 (§4.9.3.25)', header({ version: '11.0' }), 'unsupported-version'],
  ['a version that is none (§4.9.3.25)', header({ version: 'one' }), 'unsupported-version'],
  ['a language that is none (§4.7.4)', header({ 'xml:lang': 'a b' }), 'invalid-xml'],
  ['a language without end (§4.7.4)', header({ 'xml:lang': 'x'.repeat(100) }), 'invalid-xml'],
  ['no XML at all (§4.9.3.13)', 'GET / HTTP/1.1\r\n', 'not-well-formed'],
  ['a header that is not well-formed (§4.9.3.13)', "<stream:stream to='a' to='b'>", 'not-well-formed'],
  [
    'another encoding (§4.9.3.22)',
    `<?xml version='1.0' encoding='UTF-16'?>${header().slice(21)}`,
    'unsupported-encoding',
  ],
  ['a document type (§4.9.3.18)', `<!DOCTYPE x>${header().slice(21)}`, 'restricted-xml'],
  ['a header beyond the size limit (§4.9.3.14)', header({ id: 'x'.repeat(70_000) }), 'policy-violation'],
]

describe('c2s: errors in the header (RFC 6120 §4.9.1.2, §4.9.3)', () => {
  for (const [what, text, condition] of ERRORS)
    it(`${what}: ${condition || 'ignored or refused, but answered'}`, async () => {
      await using h = await testHost({ modules: [] })
      const { header: ours, elements, ended, error, stream } = await begin(h, text)
      // §4.9.1.2: our header, the error, the end; §4.9.1.3: from is a host of ours
      expect(ours?.attrs).to.include({ from: 'example.org', version: '1.0', 'xml:lang': 'en' })
      expect(ours?.attrs['id']).to.match(/^[\w-]{20,}$/)
      if (condition === '') return
      expect(error).to.equal(condition)
      expect(elements).to.have.length(1)
      expect(ended).to.equal(true)
      expect(stream.closed).to.equal(true)
    })

  const withFrom: readonly HeaderFields[] = [
    { to: 'example.net' },
    { 'xmlns:stream': 'http://wrong.example.org/' },
    { version: '11.0' },
    { xmlns: 'jabber:server' },
  ]
  for (const fields of withFrom)
    it(`is addressed to the one who said from: ${JSON.stringify(fields)} (§4.9.1.2 example)`, async () => {
      await using h = await testHost({ modules: [] })
      const { header: ours } = await begin(h, header({ from: 'romeo@example.org', ...fields }))
      expect(ours?.attrs['to']).to.equal('romeo@example.org')
    })

  it('says nothing of the host that was asked for before it is known to be ours', async () => {
    await using h = await testHost({ modules: [] })
    const text = await h.stream().send(header({ to: 'evil.example.net' }))
    expect(text).not.to.contain('evil.example.net')
  })

  it('reads nothing after an error (§4.9.1.1)', async () => {
    await using h = await testHost({ modules: [] })
    const { stream } = await begin(h, header({ to: 'example.net' }))
    expect(await stream.send(header())).to.equal('')
  })
})

describe('c2s: later headers (RFC 6120 §4.3.3)', () => {
  it('must name the same host', async () => {
    await using h = await testHost({ modules: [login] })
    const stream = h.stream()
    await stream.send(header())
    await stream.send("<x xmlns='urn:test:login'/>")
    const { error, header: ours } = read(await stream.send(header({ to: 'example.net' })))
    expect(error).to.equal('host-unknown')
    expect(ours?.attrs['from']).to.equal('example.org')
  })

  it('may not claim another account than the one that logged in (§4.7.1, §4.9.3.9)', async () => {
    await using h = await testHost({ modules: [login] })
    const stream = h.stream()
    await stream.send(header())
    await stream.send("<x xmlns='urn:test:login'/>")
    expect(read(await stream.send(header({ from: 'juliet@example.org' }))).error).to.equal('invalid-from')
  })

  it('a restart wants a header: a stanza in its place is refused', async () => {
    await using h = await testHost({ modules: [login] })
    const stream = h.stream()
    await stream.send(header())
    await stream.send("<x xmlns='urn:test:login'/>")
    const { error, header: ours } = read(await stream.send("<iq xmlns='jabber:client' type='get' id='1'/>"))
    expect(error).to.equal('invalid-namespace')
    expect(ours?.attrs['from']).to.equal('example.org')
  })

  it('takes the new header also when it comes with what asked for the restart', async () => {
    await using h = await testHost({ modules: [login] })
    const stream = h.stream()
    await stream.send(header())
    const { elements } = read(await stream.send(`<x xmlns='urn:test:login'/>${header()}`))
    expect(elements.map((e) => e.getName())).to.deep.equal(['features'])
  })
})

describe('c2s: framed headers (RFC 7395 §3.3, §3.4)', () => {
  async function frames(h: TestHost, ...texts: readonly string[]) {
    const stream = h.stream({ framing: 'frames' })
    for (const text of texts) {
      stream.transport.feed(text)
      await h.settle()
    }
    return { ...readFrames(stream.transport.written.splice(0)), stream }
  }

  it('answers <open/> with <open/>, then the features in a frame of their own (§3.3.3)', async () => {
    await using h = await testHost({ modules: [] })
    const { header: ours, elements, error } = await frames(h, openFrame({ from: 'romeo@example.org' }))
    expect(ours?.attrs).to.include({
      from: 'example.org',
      to: 'romeo@example.org',
      version: '1.0',
      'xml:lang': 'en',
    })
    const [features, ...more] = elements
    expect(more).to.deep.equal([])
    expect(features?.is('features', NS_STREAM)).to.equal(true)
    expect(error).to.equal('')
  })

  const wrong: readonly (readonly [what: string, frame: string, condition: string])[] = [
    ['<open/> of another namespace (§3.3.2)', openFrame({ xmlns: 'jabber:client' }), 'invalid-namespace'],
    ['<close/> of another namespace (§3.3.2)', "<close xmlns='urn:x'/>", 'invalid-namespace'],
    [
      'a header of a byte stream (§3.3.2)',
      "<stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'/>",
      'invalid-namespace',
    ],
    ['an open byte stream (§3.3.3)', header(), 'not-well-formed'],
    ['a stanza before <open/> (§3.4)', "<message xmlns='jabber:client'/>", 'not-authorized'],
    [
      'something else of the framing namespace',
      "<shut xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
      'unsupported-stanza-type',
    ],
    ['white space as keepalive (§3.8)', ' ', 'not-well-formed'],
    ['white space before the frame (§3.3.3)', ` ${openFrame()}`, 'not-well-formed'],
    ['two elements in one frame (§3.3.3)', openFrame() + openFrame(), 'not-well-formed'],
    ['half an element (§3.3.3)', "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'>", 'not-well-formed'],
    ['an unknown host', openFrame({ to: 'example.net' }), 'host-unknown'],
    ['another version', openFrame({ version: '2.0' }), 'unsupported-version'],
  ]
  for (const [what, frame, condition] of wrong)
    it(`${what}: ${condition}, after <open/> and before <close/> (§3.5)`, async () => {
      await using h = await testHost({ modules: [] })
      const { header: ours, error, ended, elements, stream } = await frames(h, frame)
      expect(ours?.attrs['from']).to.equal('example.org')
      expect(error).to.equal(condition)
      expect(elements).to.have.length(1)
      expect(ended).to.equal(true)
      expect(stream.closed).to.equal(true)
    })

  it('wants <open/> again after a restart, and nothing else before it (§3.7)', async () => {
    await using h = await testHost({ modules: [login] })
    const good = await frames(h, openFrame(), "<x xmlns='urn:test:login'/>", openFrame())
    expect(good.error).to.equal('')
    expect(good.elements.map((e) => e.getName())).to.deep.equal(['features', 'features'])
    const early = await frames(
      h,
      openFrame(),
      "<x xmlns='urn:test:login'/>",
      "<iq xmlns='jabber:client' type='get' id='1'/>",
    )
    expect(early.error).to.equal('not-authorized')
  })

  it('a second <open/> without a restart is refused', async () => {
    await using h = await testHost({ modules: [] })
    expect((await frames(h, openFrame(), openFrame())).error).to.equal('bad-format')
  })

  it('an empty frame is not well-formed', async () => {
    await using h = await testHost({ modules: [] })
    expect((await frames(h, '')).error).to.equal('not-well-formed')
  })
})
