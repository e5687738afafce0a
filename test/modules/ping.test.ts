/** XEP-0199: pings answered, silent clients found. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import ping from '../../modules/ping.ts'
import { testHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'

const NS = 'urn:xmpp:ping'
const PING = `<ping xmlns='${NS}'/>`
const accounts = ['romeo', 'juliet']
const limits = { idleMs: 60_000 }
const config = { ping: { timeout: '20s' } }

describe('module ping: answers (XEP-0199 §4.2)', () => {
  it('is announced for the server and for accounts (§5)', async () => {
    await using h = await testHost({ modules: [ping, disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(await features(romeo, 'example.org')).to.include(NS)
    expect(await features(romeo, 'romeo@example.org')).to.include(NS)
  })

  for (const to of ['example.org', 'romeo@example.org', undefined])
    it(`answers a ping to ${to ?? 'no address'} with an empty result`, async () => {
      await using h = await testHost({ modules: [ping], accounts })
      const romeo = await h.client('romeo@example.org/a')
      const answer = await ask(romeo, 'get', to, PING)
      expect(outcome(answer)).to.equal('result')
      expect(answer.children).to.deep.equal([])
      expect(answer.attr('to')).to.equal('romeo@example.org/a')
    })

  it('refuses a ping to the account of another as if there were none (RFC 6121 §8.5.1)', async () => {
    await using h = await testHost({ modules: [ping], accounts })
    const romeo = await h.client('romeo@example.org/a')
    for (const to of ['juliet@example.org', 'nobody@example.org'])
      expect(outcome(await ask(romeo, 'get', to, PING))).to.equal('cancel service-unavailable')
  })

  it('leaves a ping to a full address to the client (§4.4)', async () => {
    await using h = await testHost({ modules: [ping], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const juliet = await h.client('juliet@example.org/b')
    await romeo.send(`<iq type='get' id='e2e1' to='juliet@example.org/b'>${PING}</iq>`)
    const [got] = juliet.take()
    expect(got?.attr('from')).to.equal('romeo@example.org/a')
    await juliet.send(`<iq type='result' id='e2e1' to='romeo@example.org/a'/>`)
    expect(romeo.take().map((e) => e.attr('type'))).to.deep.equal(['result'])
  })

  it('knows no set (§3)', async () => {
    await using h = await testHost({ modules: [ping], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(outcome(await ask(romeo, 'set', 'example.org', PING))).to.equal('cancel service-unavailable')
  })

  it('is gone after unload', async () => {
    await using h = await testHost({ modules: [ping], accounts, limits })
    const romeo = await h.client('romeo@example.org/a')
    await h.unload('ping')
    expect(outcome(await ask(romeo, 'get', 'example.org', PING))).to.equal('cancel service-unavailable')
    await h.clock.advance(200_000)
    expect(romeo.closed).to.equal(false)
    expect(romeo.take()).to.deep.equal([])
  })
})

describe('module ping: silent clients (XEP-0199 §4.1, RFC 6120 §4.6.2)', () => {
  it('asks a client that was silent for the idle time, and leaves one alone that was not', async () => {
    await using h = await testHost({ modules: [ping], accounts, limits, config })
    const silent = await h.client('romeo@example.org/a')
    const talking = await h.client('juliet@example.org/b')
    await h.clock.advance(40_000)
    await talking.send(' ')
    await h.clock.advance(35_000)
    const [asked, ...more] = silent.take()
    expect(more).to.deep.equal([])
    expect(asked?.attrs).to.include({ type: 'get', from: 'example.org', to: 'romeo@example.org/a' })
    expect(asked?.firstElement()?.toString()).to.equal(PING)
    expect(talking.take()).to.deep.equal([])
  })

  it('closes with connection-timeout when nothing comes back in time', async () => {
    await using h = await testHost({ modules: [ping], accounts, limits, config })
    const romeo = await h.client('romeo@example.org/a')
    await h.clock.advance(60_000 + 19_000)
    expect(romeo.closed).to.equal(false)
    await h.clock.advance(2000)
    expect(romeo.closed).to.equal(true)
    expect(romeo.error?.firstElement()?.name).to.equal('connection-timeout')
  })

  for (const [what, answer] of [
    ['a result', "<iq type='result'"],
    ['an error', "<iq type='error'"],
  ] as const)
    it(`takes ${what} as a sign of life, and asks again after the next silence`, async () => {
      await using h = await testHost({ modules: [ping], accounts, limits, config })
      const romeo = await h.client('romeo@example.org/a')
      for (let round = 0; round < 3; round++) {
        await h.clock.advance(66_000)
        const asked = romeo.take()
        expect(asked).to.have.length(1)
        const error =
          "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        await romeo.send(
          `${answer} to='example.org' id='${asked[0]?.attr('id')}'>${what === 'an error' ? error : ''}</iq>`,
        )
      }
      await h.clock.advance(30_000)
      expect(romeo.closed).to.equal(false)
    })

  it('is not fooled by an answer of another client', async () => {
    await using h = await testHost({ modules: [ping], accounts, limits, config })
    const romeo = await h.client('romeo@example.org/a')
    await h.clock.advance(65_000)
    const [asked] = romeo.take()
    const juliet = await h.client('juliet@example.org/b')
    await juliet.send(`<iq type='result' to='example.org' id='${asked?.attr('id')}'/>`)
    await h.clock.advance(21_000)
    expect(romeo.closed).to.equal(true)
  })

  it('does not report a client as a failure of the server, however long it takes (10 s limit of hooks)', async () => {
    const logged: string[] = []
    const onLog = (level: string, message: string): void => void logged.push(`${level} ${message}`)
    await using h = await testHost({ modules: [ping], accounts, limits, config, onLog })
    await h.client('romeo@example.org/a')
    await h.clock.advance(100_000)
    expect(logged.filter((line) => line.startsWith('error'))).to.deep.equal([])
  })

  it('needs a time-out of a second at least', async () => {
    const failure = await testHost({ modules: [ping], config: { ping: { timeout: '999ms' } } }).then(
      () => 'started',
      (error: Error) => error.message,
    )
    expect(failure).to.equal('module ping: timeout: must be at least 1s')
  })
})
