/** XEP-0115: the verification string, and the server's own capabilities among its stream features. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import caps, { verification } from '../../modules/caps.ts'
import disco from '../../modules/disco.ts'
import ping from '../../modules/ping.ts'
import type { DiscoInfo } from '../../server/module.ts'
import type { AnyModule } from '../../server/loader.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { ask, discoInfo, features, outcome } from '../helpers/iq.ts'

const NS_CAPS = 'http://jabber.org/protocol/caps'
const INFO = 'http://jabber.org/protocol/disco#info'
const FEATURES = [
  'http://jabber.org/protocol/muc',
  'http://jabber.org/protocol/disco#items',
  'http://jabber.org/protocol/disco#info',
  NS_CAPS,
]
const form = (fields: string) => parseXml(`<x xmlns='jabber:x:data' type='result'>${fields}</x>`)
const PSI_FORM = `<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
  <field var='software_version'><value>0.11</value></field><field var='os'><value>Mac</value></field>
  <field var='ip_version' type='text-multi'><value>ipv6</value><value>ipv4</value></field>
  <field var='software'><value>Psi</value></field><field var='os_version'><value>10.5.1</value></field>`
const PSI: DiscoInfo = {
  identities: [
    { category: 'client', type: 'pc', lang: 'en', name: 'Psi 0.11' },
    { category: 'client', type: 'pc', lang: 'el', name: 'Ψ 0.11' },
  ],
  features: FEATURES,
  forms: [form(PSI_FORM)],
}

describe('module caps: verification string (XEP-0115 §5)', () => {
  it('simple example (§5.2)', () => {
    const identities = [{ category: 'client', type: 'pc', name: 'Exodus 0.9.1' }]
    expect(verification({ identities, features: FEATURES, forms: [] })).to.equal(
      'QgayPKawpkPSDYmwT/WM94uAlu0=',
    )
  })

  it('complex example, with languages and a form, given in another order (§5.3)', () => {
    expect(verification(PSI)).to.equal('q07IKJEyjvHSyhy//CH0CxmKi8w=')
  })

  it('sorts features themselves, not with the "<" behind them (§5.1 step 4)', () => {
    // '#' is below '<': sorted with the separator, the longer one would come first
    const expected = hashOf('a/b//<urn:x<urn:x#y<')
    const identities = [{ category: 'a', type: 'b' }]
    expect(verification({ identities, features: ['urn:x#y', 'urn:x'], forms: [] })).to.equal(expected)
  })

  it('sorts identities by category, then type, then language (§5.1 step 2)', () => {
    // '-' is below '/': sorted as whole strings, a-b would come before a
    const expected = hashOf('a/z//<a-b/c//<')
    const identities = [
      { category: 'a-b', type: 'c' },
      { category: 'a', type: 'z' },
    ]
    expect(verification({ identities, features: [], forms: [] })).to.equal(expected)
  })

  it('sorts by octets: characters outside the BMP after all others (§5.1)', () => {
    const expected = hashOf('\uffee<\u{10000}<')
    expect(verification({ identities: [], features: ['\u{10000}', '\uffee'], forms: [] })).to.equal(expected)
  })

  it('sorts forms by FORM_TYPE, fields by var and values, each by itself (§5.1 steps 6, 7)', () => {
    const first = form(
      "<field var='FORM_TYPE' type='hidden'><value>t</value></field><field var='v#'><value>x#</value><value>x</value></field><field var='v'><value>1</value></field>",
    )
    const second = form("<field var='FORM_TYPE' type='hidden'><value>t#</value></field>")
    expect(verification({ identities: [], features: [], forms: [second, first] })).to.equal(
      hashOf('t<v<1<v#<x<x#<t#<'),
    )
  })

  it('ignores forms without a hidden FORM_TYPE, as receivers do (§5.4 step 3.6)', () => {
    const bare = form("<field var='x'><value>1</value></field>")
    const notHidden = form("<field var='FORM_TYPE'><value>t</value></field>")
    expect(verification({ ...PSI, forms: [bare, ...PSI.forms, notHidden] })).to.equal(verification(PSI))
  })

  it('leaves "&lt;" alone in a name (§5.1 note)', () => {
    const identities = [{ category: 'a', type: 'b', name: 'x&lt;y' }]
    expect(verification({ identities, features: [], forms: [] })).to.equal(hashOf('a/b//x&lt;y<'))
  })
})

/** A stream that has authenticated, by a feature of this test. */
const login: AnyModule = {
  name: 'login',
  summary: 'test',
  specs: [],
  setup(ctx) {
    ctx.streamFeature({
      ns: 'urn:test:login',
      streams: ['c2s'],
      needs: [],
      forbids: ['authenticated'],
      advertise: () => undefined,
      handle: () => ({ identity: ctx.hostJid.bare, next: 'restart' }),
    })
  },
}
const HEADER =
  "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

/** The <c/> among the stream features after login. */
async function announced(h: TestHost): Promise<{ ver: string; node: string; hash: string } | undefined> {
  const stream = h.stream()
  const before = await stream.send(HEADER)
  expect(before).not.to.contain(NS_CAPS)
  await stream.send("<login xmlns='urn:test:login'/>")
  const found = /<c xmlns='http:\/\/jabber.org\/protocol\/caps' ([^>]*)\/>/.exec(await stream.send(HEADER))
  await stream.drop()
  if (found === null) return undefined
  const attr = (name: string): string => new RegExp(`${name}='([^']*)'`).exec(found[1] ?? '')?.[1] ?? ''
  return { ver: attr('ver'), node: attr('node'), hash: attr('hash') }
}

describe('module caps: stream feature (XEP-0115 §6.3)', () => {
  const accounts = ['romeo']

  it('announces a hash that the answer to a disco request proves (§5.4, §6.2)', async () => {
    await using h = await testHost({ modules: [disco, caps, ping, login], accounts })
    const c = await announced(h)
    expect(c).to.include({ hash: 'sha-1', node: 'urn:hermod:server' })
    const romeo = await h.client('romeo@example.org/a')
    const query = await discoInfo(romeo, 'example.org', `${c!.node}#${c!.ver}`)
    expect(query.attr('node')).to.equal(`${c!.node}#${c!.ver}`)
    const info: DiscoInfo = {
      identities: query
        .getChildren('identity')
        .map((i) => ({ category: i.attr('category')!, type: i.attr('type')!, name: i.attr('name')! })),
      features: query.getChildren('feature').map((f) => f.attr('var')!),
      forms: query.getChildren('x', 'jabber:x:data'),
    }
    expect(verification(info)).to.equal(c!.ver)
    const plain = await discoInfo(romeo, 'example.org')
    expect(query.withAttrs({ node: undefined }).toString()).to.equal(plain.toString())
  })

  it('is a new one when the features change (§6.1), and the old node is gone', async () => {
    await using h = await testHost({ modules: [disco, caps, ping, login], accounts })
    const before = await announced(h)
    await h.unload('ping')
    const after = await announced(h)
    expect(after!.ver).not.to.equal(before!.ver)
    const romeo = await h.client('romeo@example.org/a')
    const old = `<query xmlns='${INFO}' node='${before!.node}#${before!.ver}'/>`
    expect(outcome(await ask(romeo, 'get', 'example.org', old))).to.equal('cancel item-not-found')
    await h.load(ping)
    expect(await announced(h)).to.deep.equal(before)
  })

  it('takes the node from the configuration (§4)', async () => {
    const node = 'https://chat.example.org/'
    await using h = await testHost({ modules: [disco, caps, login], accounts, config: { caps: { node } } })
    expect((await announced(h))!.node).to.equal(node)
  })

  it('is announced in disco (§7), and its node is no item (§6.2)', async () => {
    await using h = await testHost({ modules: [disco, caps], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(await features(romeo, 'example.org')).to.include(NS_CAPS)
    const items = await ask(
      romeo,
      'get',
      'example.org',
      "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    )
    expect(items.firstElement()?.children).to.deep.equal([])
  })

  it('is nothing to negotiate: an element of its namespace ends the stream (RFC 6120 §4.9.3.24)', async () => {
    await using h = await testHost({ modules: [disco, caps], accounts })
    const romeo = await h.client('romeo@example.org/a')
    await romeo.send(`<c xmlns='${NS_CAPS}'/>`)
    expect(romeo.error?.firstElement()?.name).to.equal('unsupported-stanza-type')
  })

  it('is gone after unload', async () => {
    await using h = await testHost({ modules: [disco, caps, login], accounts })
    await h.unload('caps')
    expect(await announced(h)).to.equal(undefined)
    const romeo = await h.client('romeo@example.org/a')
    expect(await features(romeo, 'example.org')).not.to.include(NS_CAPS)
  })
})

function hashOf(text: string): string {
  return createHash('sha1').update(text).digest('base64')
}
