/**
 * Converse.js over WebSocket resumes its session (XEP-0198 §5) by itself when its connection is cut: nothing is lost, nothing comes twice.
 * Cut a second time, version 14 does not ask to resume but binds its resource again, so that one time is all that is tried.
 */
import { expect } from 'chai'
import { it } from 'mocha'
import { startServer } from '../helpers/server.ts'
import { startTcpProxy } from '../helpers/tcp-proxy.ts'
import { Browser, CHROMIUM } from './browser.ts'
import { PASSWORD, Peer } from './peer.ts'
import { describeWith } from './targets.ts'

describeWith(CHROMIUM === undefined ? 'chromium' : undefined, 'Converse.js resumes (XEP-0198 §5)', () => {
  it('both directions are lost on their way: both come once, in the same session', async function () {
    this.timeout(120_000)
    await using server = await startServer()
    await using proxy = await startTcpProxy(server.ports.http)
    for (const user of ['romeo', 'juliet']) await server.addUser(user, PASSWORD)
    const host = server.server.hosts.get(server.domain)
    const resumed = Promise.withResolvers<string>()
    host?.hooks.chain('session:resumed').add({
      module: 'test',
      place: { phase: 'observe' },
      handle: ({ session }) => resumed.resolve(session.jid.toString()),
    })
    const romeo = await Peer.login(server, 'romeo', 'juliet@localhost')
    await using page = await Browser.start(`http://localhost:${proxy.port}/`)
    try {
      await page.login('juliet', PASSWORD)
      await page.chatWith('romeo@localhost')
      romeo.send(['Good morrow, cousin'])
      await page.shows('Good morrow, cousin')
      await page.say('Is the day so young?')
      await romeo.waitFor('Is the day so young?')
      const [session, ...others] = [...(host?.of('juliet') ?? [])]
      expect(others).to.deep.equal([])

      proxy.freeze(true)
      romeo.send(['from romeo'])
      await page.say('from juliet')
      await romeo.client.ping()
      proxy.cut()
      proxy.freeze(false)
      const late = AbortSignal.timeout(30_000)
      late.addEventListener('abort', () => resumed.reject(new Error('not resumed')))
      expect(await resumed.promise).to.equal(session?.jid.toString())
      await page.shows('from romeo')
      await page.say('the last one')
      await romeo.waitFor('the last one')
      expect(romeo.got).to.deep.equal(['Is the day so young?', 'from juliet', 'the last one'])
      expect(await page.texts()).to.have.members([
        'Good morrow, cousin',
        'Is the day so young?',
        'from juliet',
        'from romeo',
        'the last one',
      ])
    } catch (error) {
      await page.screenshot('failed')
      throw error
    } finally {
      romeo.client.drop()
    }
  })
})
