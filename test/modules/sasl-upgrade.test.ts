/** XEP-0480: an account gets SCRAM keys of one more hash during a login, or stays as it was. */
import { createHash, createHmac } from 'node:crypto'
import { expect } from 'chai'
import { defineModule } from '../../server/module.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { el } from '../../server/xmpp/element.ts'
import { bindingData, LoginStream, outcome } from '../helpers/login.ts'
import { Scram } from '../helpers/scram.ts'
import {
  NS,
  NS_UPGRADE,
  NS_SCRAM,
  AGENT,
  PASSWORD,
  JULIET,
  ALL,
  tls,
  b64,
  unb64,
  upgradesOf,
  names,
  tasksOf,
  hashesOf,
  ask,
  next,
  hashed,
  hostWith,
  start,
  salted,
  scramLogin,
  plainLogin,
  begun,
} from '../helpers/upgrade.ts'

describe('sasl-upgrade: offers (§2.1)', () => {
  it('what the claimed account lacks, next to the mechanisms it can use; nothing for one that has all', async () => {
    await using host = await start()
    const juliet = await LoginStream.open(host, { tls, from: JULIET })
    expect(upgradesOf(juliet)).to.deep.equal(['UPGR-SCRAM-SHA-512', 'UPGR-SCRAM-SHA-256'])
    for (const feature of ['authentication', 'mechanisms'])
      expect(juliet.mechanisms(feature)).to.deep.equal(['SCRAM-SHA-1-PLUS', 'SCRAM-SHA-1', 'PLAIN'])
    const romeo = await LoginStream.open(host, { tls, from: 'romeo@example.org' })
    expect(upgradesOf(romeo)).to.deep.equal([])
    expect(romeo.mechanisms('authentication')).to.include.members(['SCRAM-SHA-512-PLUS', 'SCRAM-SHA-256'])
  })

  it('XEP-0388 §2.1: without a claim what is independent of it: the hashes all have, the upgrades some need', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(login.mechanisms('authentication')).to.deep.equal(['SCRAM-SHA-1-PLUS', 'SCRAM-SHA-1', 'PLAIN'])
    expect(upgradesOf(login)).to.deep.equal(['UPGR-SCRAM-SHA-512', 'UPGR-SCRAM-SHA-256'])
  })

  it('nothing where all accounts have all keys, nor without the module, nor without TLS', async () => {
    await using host = await hostWith(await openMemory(), ALL)
    await host.service('auth').create('juliet', PASSWORD)
    for (const more of [{}, { from: JULIET }, { from: 'nobody@example.org' }])
      expect(upgradesOf(await LoginStream.open(host, { tls, ...more }))).to.deep.equal([])
    await using mixed = await start()
    expect((await LoginStream.open(mixed, { from: JULIET })).offers).to.not.include('authentication')
    await mixed.unload('sasl-upgrade')
    expect(upgradesOf(await LoginStream.open(mixed, { tls, from: JULIET }))).to.deep.equal([])
  })

  it('no hash that new passwords would not get either', async () => {
    const store = await openMemory()
    {
      await using before = await hostWith(store, ['SHA-256'])
      await before.service('auth').create('juliet', PASSWORD)
    }
    await using host = await hostWith(store, ['SHA-256', 'SHA-512'])
    const login = await LoginStream.open(host, { tls, from: JULIET })
    expect(upgradesOf(login)).to.deep.equal(['UPGR-SCRAM-SHA-512'])
    const { answers } = await scramLogin(host, { mechanism: 'SCRAM-SHA-256-PLUS', inner: ask('SHA-1') })
    expect(answers[0]?.getName()).to.equal('success')
  })

  it('XEP-0388 §3: names without account are offered what some account is, each the same every time', async () => {
    await using host = await start()
    const seen = new Map<string, number>()
    for (let i = 0; i < 60; i++) {
      const open = async (): Promise<string> => {
        const login = await LoginStream.open(host, { tls, from: `nobody${i}@example.org` })
        return [...login.mechanisms('authentication'), ...upgradesOf(login)].join(' ')
      }
      const offer = await open()
      expect(await open()).to.equal(offer)
      seen.set(offer, (seen.get(offer) ?? 0) + 1)
    }
    const real = await Promise.all(
      [JULIET, 'romeo@example.org'].map(async (from) => {
        const login = await LoginStream.open(host, { tls, from })
        return [...login.mechanisms('authentication'), ...upgradesOf(login)].join(' ')
      }),
    )
    expect([...seen.keys()]).to.have.members(real)
    expect(Math.min(...seen.values())).to.be.greaterThan(10)
  })

  it('XEP-0474: what was offered stays what the client is told of, whatever others do meanwhile', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls, from: JULIET })
    const scram = new Scram('SCRAM-SHA-1', 'juliet', PASSWORD)
    const { login: other, data } = await begun(host)
    await other.send(hashed(b64(salted('SHA-256', data))))
    const xml = `<authenticate xmlns='${NS}' mechanism='SCRAM-SHA-1'><initial-response>${b64(scram.first())}</initial-response></authenticate>`
    const fresh = await LoginStream.open(host, { tls, from: JULIET })
    for (const one of [login, fresh]) {
      const told = unb64((await one.ask(xml)).getText())
      const offers = one.mechanisms('authentication').toSorted().join('\x1e')
      const shown = createHash('sha1').update(`${offers}\x1ftls-exporter\x1etls-server-end-point`)
      expect(told).to.contain(`,h=${shown.digest('base64')}`)
    }
    expect(login.mechanisms('authentication')).to.not.include('SCRAM-SHA-256')
    expect(fresh.mechanisms('authentication')).to.include('SCRAM-SHA-256')
  })
})

describe('sasl-upgrade: an upgrade (§2.2, §3)', () => {
  it('continue, next, salt, hash, success; then the new mechanism works, and the old one too (§4)', async () => {
    await using host = await start()
    const { login, answers, proven } = await scramLogin(host, { inner: ask('SHA-256') })
    expect(answers).to.have.length(1)
    expect(answers[0]!.is('continue', NS)).to.equal(true)
    expect(proven, 'additional data of the mechanism').to.equal(true)
    expect(tasksOf(answers[0]!)).to.deep.equal(['UPGR-SCRAM-SHA-256'])
    const data = await login.ask(next('SHA-256'))
    expect(data.is('task-data', NS)).to.equal(true)
    const salt = data.getChild('salt', NS_SCRAM)
    expect(Buffer.from(salt?.getText() ?? '', 'base64')).to.have.length(16)
    expect(salt?.attrs['iterations']).to.equal('4096')
    expect(await hashesOf(host)).to.equal('SHA-1')
    const [success] = await login.send(hashed(b64(salted('SHA-256', data))))
    expect(success?.is('success', NS)).to.equal(true)
    expect(success?.getChildText('authorization-identifier')).to.equal(JULIET)
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256')
    for (const mechanism of ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256', 'SCRAM-SHA-1', 'SCRAM-SHA-1-PLUS']) {
      const later = await scramLogin(host, { mechanism, from: '' })
      expect(later.answers[0]?.getName(), mechanism).to.equal('success')
      expect(later.proven).to.equal(true)
    }
    expect(upgradesOf(await LoginStream.open(host, { tls, from: JULIET }))).to.deep.equal([
      'UPGR-SCRAM-SHA-512',
    ])
  })

  it('the keys are StoredKey and ServerKey of what the client sent (RFC 5802 §3), which is not kept', async () => {
    await using host = await start()
    const { login, data } = await begun(host, 'SHA-512')
    const secret = salted('SHA-512', data)
    await login.send(hashed(b64(secret)))
    const keys = await host.service('auth').scramKeys('juliet', 'SHA-512')
    const mac = (text: string) => createHmac('sha512', secret).update(text).digest()
    expect(Buffer.from(keys!.serverKey).equals(mac('Server Key'))).to.equal(true)
    expect(b64(keys!.salt)).to.equal(data.getChildText('salt', NS_SCRAM))
    const doc = await host.store.open('example.org', 'accounts').docs('accounts').get('juliet', 'account')
    for (const value of Object.values(doc ?? {}))
      if (value instanceof Uint8Array) {
        expect(Buffer.from(value).equals(secret)).to.equal(false)
        expect(Buffer.from(value).equals(mac('Client Key'))).to.equal(false)
      }
  })

  it('several, one task at a time; unknown, repeated and needless ones are passed over', async () => {
    await using host = await start()
    const inner = `${ask('SHA-256', 'SHA-512', 'SHA-256', 'SHA-1', 'SHA3-512')}<upgrade xmlns='${NS_UPGRADE}'/>`
    const { login, answers } = await scramLogin(host, { inner })
    expect(tasksOf(answers[0]!)).to.deep.equal(['UPGR-SCRAM-SHA-512'])
    const more = await login.ask(hashed(b64(salted('SHA-512', await login.ask(next('SHA-512'))))))
    expect(more.getName()).to.equal('continue')
    expect(names(more), 'no second proof').to.deep.equal(['tasks'])
    expect(tasksOf(more)).to.deep.equal(['UPGR-SCRAM-SHA-256'])
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-512')
    const [success] = await login.send(hashed(b64(salted('SHA-256', await login.ask(next('SHA-256'))))))
    expect(success?.getName()).to.equal('success')
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256, SHA-512')
    await host.settle()
    // the last account without them: now everybody is offered all
    expect((await LoginStream.open(host, { tls })).mechanisms()[0]).to.equal('SCRAM-SHA-512-PLUS')
  })

  it('not asked for, no task; asked for what is there already, no task', async () => {
    await using host = await start()
    expect((await scramLogin(host, {})).answers[0]?.getName()).to.equal('success')
    const romeo = { user: 'romeo', from: 'romeo@example.org', inner: ask('SHA-256', 'SHA-512') }
    expect((await scramLogin(host, romeo)).answers[0]?.getName()).to.equal('success')
    expect(await hashesOf(host)).to.equal('SHA-1')
  })

  it('white space around the hash is no mistake (§8, xs:base64Binary)', async () => {
    await using host = await start()
    const { login, data } = await begun(host)
    const text = b64(salted('SHA-256', data))
    const [success] = await login.send(hashed(`\n    ${text.slice(0, 20)}\n\t${text.slice(20)}\n  `))
    expect(success?.getName()).to.equal('success')
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256')
  })

  it('a salt of its own for each attempt', async () => {
    await using host = await start()
    const one = await begun(host)
    const two = await begun(host)
    expect(one.data.getChildText('salt', NS_SCRAM)).to.not.equal(two.data.getChildText('salt', NS_SCRAM))
  })

  it('a client that knows PLAIN only: the server makes the keys itself, without a task', async () => {
    await using host = await start()
    expect((await plainLogin(host, ask('SHA-256'), 'wrong'))[0]?.getName()).to.equal('failure')
    expect(await hashesOf(host)).to.equal('SHA-1')
    expect((await plainLogin(host, ask('SHA-256')))[0]?.getName()).to.equal('success')
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256, SHA-512')
    expect((await scramLogin(host, { mechanism: 'SCRAM-SHA-512-PLUS' })).proven).to.equal(true)
  })
})

describe('sasl-upgrade: who may', () => {
  it('not who came with a token (XEP-0484 §4.2): a stolen token must not become a password', async () => {
    await using host = await start()
    const request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>"
    const { answers } = await scramLogin(host, { inner: request })
    const token = String(answers[0]?.getChild('token', 'urn:xmpp:fast:0')?.attrs['token'])
    const mac = createHmac('sha256', token).update('Initiator').update(bindingData('tls-exporter')).digest()
    const login = await LoginStream.open(host, { tls, from: JULIET })
    const [success] = await login.send(
      `<authenticate xmlns='${NS}' mechanism='HT-SHA-256-EXPR'><initial-response>${b64(Buffer.concat([Buffer.from('juliet\0'), mac]))}</initial-response>${AGENT}<fast xmlns='urn:xmpp:fast:0'/>${ask('SHA-256', 'SHA-512')}</authenticate>`,
    )
    expect(success?.getName()).to.equal('success')
    expect(await hashesOf(host)).to.equal('SHA-1')
  })

  it('not who came by a mechanism that proves no password, such as a certificate', async () => {
    const external = defineModule({
      name: 'external',
      summary: 'test',
      specs: [],
      requires: ['sasl'],
      setup: (ctx) =>
        void ctx.use('sasl').register({
          name: 'X-CERT',
          rank: 1,
          needsTls: true,
          usable: () => true,
          start: () => () => ({ local: 'juliet' }),
        }),
    })
    await using host = await start(['SHA-1'], external)
    const login = await LoginStream.open(host, { tls, from: JULIET })
    const [success] = await login.send(
      `<authenticate xmlns='${NS}' mechanism='X-CERT'><initial-response/>${ask('SHA-256')}</authenticate>`,
    )
    expect(success?.getName()).to.equal('success')
  })

  it('§2.2: only after second factors, by itself', async () => {
    const factor = defineModule({
      name: 'factor',
      summary: 'test',
      specs: [],
      requires: ['sasl2'],
      setup: (ctx) =>
        void ctx.use('sasl2').addTask({
          name: 'TOTP',
          wanted: () => true,
          start: () => ({ done: [el('result', 'urn:x:totp')] }),
        }),
    })
    await using host = await start(['SHA-1'], factor)
    const { login, answers } = await scramLogin(host, { inner: ask('SHA-256') })
    expect(tasksOf(answers[0]!)).to.deep.equal(['TOTP'])
    expect(outcome(await login.send(next('SHA-256')))).to.equal('failure:malformed-request')
    const second = await scramLogin(host, { inner: ask('SHA-256') })
    const more = await second.login.ask(`<next xmlns='${NS}' task='TOTP'/>`)
    expect(tasksOf(more)).to.deep.equal(['UPGR-SCRAM-SHA-256'])
    expect(names(more)).to.deep.equal(['result', 'tasks'])
  })
})

describe('sasl-upgrade: together with inline features', () => {
  const bindRequest =
    "<bind xmlns='urn:xmpp:bind:0'><tag>phone</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"
  const token = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>"

  it('XEP-0388 §2.6.1: binding, stream management and tokens come with the success, not before', async () => {
    await using host = await start()
    const { login, data } = await begun(host, 'SHA-256', bindRequest + token)
    expect([...host.host.all()]).to.have.length(0)
    const [success] = await login.send(hashed(b64(salted('SHA-256', data))))
    expect(names(success)).to.deep.equal(['authorization-identifier', 'token', 'bound'])
    expect(success?.getChildText('authorization-identifier')).to.match(/^juliet@example\.org\/phone/)
    expect([...host.host.all()]).to.have.length(1)
  })

  it('a session is resumed after the task; when the task fails it stays resumable', async () => {
    await using host = await start()
    const { login, answers } = await scramLogin(host, { inner: bindRequest })
    const id = String(answers[0]?.getChild('bound')?.getChild('enabled', 'urn:xmpp:sm:3')?.attrs['id'])
    await login.stream.drop()
    const resume = `<resume xmlns='urn:xmpp:sm:3' h='0' previd='${id}'/>`
    const failed = await begun(host, 'SHA-256', resume)
    expect(outcome(await failed.login.send(hashed('')))).to.equal('failure:malformed-request')
    const again = await begun(host, 'SHA-256', resume)
    const [success] = await again.login.send(hashed(b64(salted('SHA-256', again.data))))
    expect(names(success)).to.deep.equal(['authorization-identifier', 'resumed'])
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256')
  })
})
