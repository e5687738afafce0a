/** XEP-0202 with the formats of XEP-0082: the time of the server. */
import { expect } from 'chai'
import disco from '../../modules/disco.ts'
import time from '../../modules/time.ts'
import { testHost } from '../helpers/host.ts'
import { ask, features, outcome } from '../helpers/iq.ts'

const NS = 'urn:xmpp:time'
const TIME = `<time xmlns='${NS}'/>`
const accounts = ['romeo', 'juliet']

describe('module time (XEP-0202)', () => {
  it('is announced (§4)', async () => {
    await using h = await testHost({ modules: [time, disco], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(await features(romeo, 'example.org')).to.include(NS)
  })

  it('tells UTC as a dateTime and an offset of zero (§2, §6; XEP-0082 §3.2)', async () => {
    await using h = await testHost({ modules: [time], accounts })
    const romeo = await h.client('romeo@example.org/a')
    const told = async () => (await ask(romeo, 'get', 'example.org', TIME)).getChild('time', NS)
    const first = await told()
    expect(first?.elements.map((e) => e.name)).to.deep.equal(['tzo', 'utc'])
    expect(first?.getChildText('tzo')).to.equal('+00:00')
    expect(first?.getChildText('utc')).to.match(/^2026-01-01T00:00:00(\.000)?Z$/)
    await h.clock.advance(86_400_000 + 1500)
    expect(Date.parse((await told())?.getChildText('utc') ?? '')).to.equal(h.clock.now())
  })

  it('answers for the server only', async () => {
    await using h = await testHost({ modules: [time], accounts })
    const romeo = await h.client('romeo@example.org/a')
    for (const to of ['romeo@example.org', 'juliet@example.org', 'nobody@example.org'])
      expect(outcome(await ask(romeo, 'get', to, TIME))).to.equal('cancel service-unavailable')
  })

  it('knows no set, and is gone after unload', async () => {
    await using h = await testHost({ modules: [time], accounts })
    const romeo = await h.client('romeo@example.org/a')
    expect(outcome(await ask(romeo, 'set', 'example.org', TIME))).to.equal('cancel service-unavailable')
    await h.unload('time')
    expect(outcome(await ask(romeo, 'get', 'example.org', TIME))).to.equal('cancel service-unavailable')
  })
})
