/** XEP-0198 §5: resumption. */
import { expect } from 'chai'
import sm from '../../modules/stream-management/index.ts'
import type { ModuleDef } from '../../server/module.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { testHost } from '../helpers/host.ts'
import {
  NS,
  ENABLE,
  JULIET,
  ROMEO,
  R,
  a,
  message,
  resume,
  condition,
  first,
  stage,
  Fresh,
} from '../helpers/managed.ts'
import { header, read } from '../helpers/raw-stream.ts'

describe('stream management: resumption, XEP-0198 §5', () => {
  for (const framing of ['stream', 'frames'] as const)
    it(`over ${framing}: the session goes on, what is not confirmed comes again in order, with its time`, async () => {
      await using s = await stage({}, ENABLE, { framing })
      await s.juliet.send(message('1') + message('2'))
      await s.romeo.send(`<a xmlns='${NS}' h='1'/>`)
      const sent = s.host.clock.now()
      await s.romeo.drop()
      expect(s.romeo.session.connected).to.equal(false)
      await s.host.clock.advance(60_000)
      await s.juliet.send(message('3'))
      const fresh = await Fresh.open(s.host, { framing })
      const got = await fresh.send(resume(s.id, 1))
      expect(first(got)).to.equal('resumed 0')
      expect(got.elements[0]?.attrs['previd']).to.equal(s.id)
      expect(fresh.ids(got).slice(1)).to.deep.equal(['2', '3', 'r'])
      const stamps = got.elements
        .slice(1, 3)
        .map((e) => Date.parse(String(e.getChild('delay')?.attrs['stamp'])))
      expect(stamps).to.deep.equal([sent, sent + 60_000])
      expect(s.host.host.get(parseJid(ROMEO))?.connected).to.equal(true)
      expect(s.world.resumed).to.deep.equal(['orchard'])
      await s.juliet.send(message('4'))
      expect(fresh.ids(fresh.take())).to.deep.equal(['4'])
      expect((await fresh.send(a(4))).elements).to.deep.equal([])
      expect(fresh.stream.closed).to.equal(false)
      expect(s.world.closed).to.deep.equal([])
    })

  it('from TCP to WebSocket, and back', async () => {
    await using s = await stage()
    await s.romeo.drop()
    await s.juliet.send(message('1'))
    const web = await Fresh.open(s.host, { framing: 'frames' })
    expect(web.ids(await web.send(resume(s.id, 0)))).to.deep.equal(['resumed', '1', 'r'])
    await web.stream.drop()
    const tcp = await Fresh.open(s.host)
    expect(tcp.ids(await tcp.send(resume(s.id, 0)))).to.deep.equal(['resumed', '1', 'r'])
  })

  it('counts carry on in both directions', async () => {
    await using s = await stage()
    await s.romeo.send(message('1', JULIET) + message('2', JULIET))
    await s.romeo.drop()
    const one = await Fresh.open(s.host)
    expect(first(await one.send(resume(s.id, 0)))).to.equal('resumed 2')
    const [answer] = (await one.send(message('3', JULIET) + R)).elements
    expect(answer?.attrs['h']).to.equal('3')
    await one.stream.drop()
    const two = await Fresh.open(s.host)
    expect(first(await two.send(resume(s.id, 0)))).to.equal('resumed 3')
  })

  it('while the first stream is half open: it gets conflict, nothing more is read from it', async () => {
    await using s = await stage()
    await s.juliet.send(message('1'))
    const fresh = await Fresh.open(s.host)
    const got = await fresh.send(resume(s.id, 0))
    expect(fresh.ids(got)).to.deep.equal(['resumed', '1', 'r'])
    expect(condition(s.romeo.error)).to.equal('conflict')
    expect(s.romeo.closed).to.equal(true)
    s.romeo.transport.sink?.data(Buffer.from(message('late', JULIET)))
    await s.host.settle()
    expect(s.world.seen).to.not.include('late')
    await s.host.clock.advance(20_000)
    expect(s.world.closed).to.deep.equal([])
    expect(s.host.c2s.size).to.equal(2)
  })

  it('a torn stanza of the old stream is not continued by the new one', async () => {
    await using s = await stage()
    await s.romeo.send(`${message('1', JULIET)}<message to='juliet@example.org' id='2'><bo`)
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume(s.id, 0)))).to.equal('resumed 1')
    await fresh.send(message('2', JULIET))
    expect(s.world.seen).to.deep.equal(['1', '2'])
  })

  it('h is told when everything that was begun is stored', async () => {
    await using s = await stage()
    s.world.held = true
    await s.romeo.send(message('1', JULIET) + message('2', JULIET))
    await s.romeo.drop()
    const fresh = await Fresh.open(s.host)
    expect((await fresh.send(resume(s.id, 0))).elements).to.deep.equal([])
    s.world.gates[0]?.resolve()
    await s.host.settle()
    expect(fresh.take().elements).to.deep.equal([])
    s.world.gates[1]?.resolve()
    await s.host.settle()
    expect(first(fresh.take())).to.equal('resumed 2')
  })

  it('an iq that is being answered counts, what stood behind it does not', async () => {
    await using s = await stage()
    s.world.held = true
    const iq = `<iq type='get' id='iq' to='example.org'><query xmlns='urn:x:slow'/></iq>`
    await s.romeo.send(`${message('1', JULIET)}${iq}${message('2', JULIET)}`)
    const fresh = await Fresh.open(s.host)
    expect((await fresh.send(resume(s.id, 0))).elements).to.deep.equal([])
    s.world.gates[0]?.resolve()
    await s.host.settle()
    expect(s.world.seen).to.deep.equal(['1', 'iq'])
    expect(fresh.take().elements).to.deep.equal([])
    s.world.gates[1]?.resolve()
    await s.host.settle()
    const got = fresh.take()
    expect(first(got)).to.equal('resumed 2')
    expect(fresh.ids(got)).to.deep.equal(['resumed', 'iq', 'r'])
    expect(s.world.seen).to.deep.equal(['1', 'iq'])
  })

  it('what arrives while it is resumed comes once, behind <resumed/>', async () => {
    await using s = await stage()
    s.world.held = true
    await s.romeo.send(message('out', JULIET))
    const fresh = await Fresh.open(s.host)
    await fresh.send(resume(s.id, 0))
    s.world.held = false
    await s.juliet.send(message('1') + message('2'))
    expect(fresh.take().elements).to.deep.equal([])
    s.world.gates[0]?.resolve()
    await s.host.settle()
    expect(fresh.ids(fresh.take())).to.deep.equal(['resumed', '1', '2', 'r'])
  })

  it('what the client sends right behind <resume/> is worked on afterwards, in order', async () => {
    await using s = await stage()
    await s.romeo.drop()
    const fresh = await Fresh.open(s.host)
    const got = await fresh.send(`${resume(s.id, 0)}${message('1', JULIET)}${message('2', JULIET)}${R}`)
    expect(got.elements.map((e) => `${e.getName()} ${String(e.attrs['h'])}`)).to.deep.equal([
      'resumed 0',
      'a 2',
    ])
    expect(s.juliet.take().map((e) => e.attr('id'))).to.deep.equal(['1', '2'])
  })

  it('twice at once: one after another, the last one has it, nothing is lost', async () => {
    await using s = await stage()
    s.world.held = true
    await s.romeo.send(message('out', JULIET))
    const one = await Fresh.open(s.host)
    const two = await Fresh.open(s.host)
    one.stream.transport.feed(resume(s.id, 0))
    two.stream.transport.feed(resume(s.id, 0))
    await s.host.settle()
    s.world.held = false
    await s.juliet.send(message('1'))
    s.world.gates[0]?.resolve()
    await s.host.settle()
    const outputs = [one, two].map((fresh) => ({ fresh, out: fresh.take() }))
    const last = outputs.filter(({ out }) => out.error === '')
    expect(last).to.have.length(1)
    expect(last[0]?.fresh.ids(last[0].out)).to.deep.equal(['resumed', '1', 'r'])
    expect(outputs.filter(({ out }) => out.error === 'conflict')).to.have.length(1)
    await s.juliet.send(message('2'))
    expect(last[0]?.fresh.ids(last[0].fresh.take())).to.deep.equal(['2'])
    expect(s.world.closed).to.deep.equal([])
    expect(s.host.c2s.size).to.equal(2)
  })

  it('the new stream dies while it waits: the session stays, for the next one', async () => {
    for (const halfOpen of [true, false]) {
      await using s = await stage()
      s.world.held = true
      await s.romeo.send(message('out', JULIET))
      if (!halfOpen) await s.romeo.drop()
      const one = await Fresh.open(s.host)
      await one.send(resume(s.id, 0))
      await one.stream.drop()
      s.world.held = false
      s.world.gates[0]?.resolve()
      await s.juliet.send(message('1'))
      expect(s.world.closed).to.deep.equal([])
      const two = await Fresh.open(s.host)
      expect(two.ids(await two.send(resume(s.id, 0)))).to.deep.equal(['resumed', '1', 'r'])
      await two.stream.drop()
      await s.host.clock.advance(601_000)
      expect(s.world.closed).to.deep.equal(['orchard lost'])
      expect(s.world.kept.map((e) => e.attr('id'))).to.deep.equal(['1'])
      expect(s.host.c2s.size).to.equal(1)
    }
  })

  it('the session expires while it is being resumed: <failed/>, and the client may bind', async () => {
    await using s = await stage({ hibernation: '5s' })
    s.world.held = true
    await s.romeo.send(message('out', JULIET))
    await s.romeo.drop()
    await s.host.clock.advance(4000)
    const fresh = await Fresh.open(s.host)
    fresh.stream.transport.feed(resume(s.id, 0))
    await s.host.clock.advance(2000)
    s.world.held = false
    s.world.gates[0]?.resolve()
    await s.host.settle()
    expect(first(fresh.take())).to.equal('failed 1 item-not-found')
    await s.host.c2s.adopt(fresh.stream.session, parseJid(ROMEO))
    await s.juliet.send(message('1'))
    expect(fresh.ids(fresh.take())).to.deep.equal(['1'])
  })

  it('h too high: a stream error, and the session is still there', async () => {
    await using s = await stage()
    await s.juliet.send(message('1'))
    await s.romeo.drop()
    const bad = await Fresh.open(s.host)
    expect((await bad.send(resume(s.id, 2))).error).to.equal('undefined-condition')
    const good = await Fresh.open(s.host)
    expect(good.ids(await good.send(resume(s.id, 0)))).to.deep.equal(['resumed', '1', 'r'])
  })

  it('h lower than confirmed before: the queue does not reach back, <failed/>', async () => {
    await using s = await stage()
    await s.juliet.send(message('1') + message('2'))
    await s.romeo.send(a(2))
    await s.romeo.drop()
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume(s.id, 1)))).to.equal('failed 0 unexpected-request')
  })

  it('unknown ids, ids of others, and incomplete requests', async () => {
    await using s = await stage()
    await s.romeo.drop()
    const other = await Fresh.open(s.host, {}, 'juliet@example.org')
    expect(first(await other.send(resume(s.id, 0)))).to.equal('failed item-not-found')
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume('nonsense', 0)))).to.equal('failed item-not-found')
    expect(first(await fresh.send(resume('x'.repeat(5000), 0)))).to.equal('failed item-not-found')
    expect(first(await fresh.send(`<resume xmlns='${NS}' h='0'/>`))).to.equal('failed bad-request')
    expect(first(await fresh.send(`<resume xmlns='${NS}' previd='${s.id}'/>`))).to.equal('failed bad-request')
    expect(first(await fresh.send(resume(s.id, 0)))).to.equal('resumed 0')
  })

  it('before authentication, and when bound: unexpected-request', async () => {
    await using s = await stage()
    const early = s.host.stream()
    await early.send(header())
    expect(first(read(await early.send(resume(s.id, 0))))).to.equal('failed unexpected-request')
    const [failed] = (await s.juliet.send(resume(s.id, 0))).slice(-1)
    expect(condition(failed)).to.equal('unexpected-request')
  })

  it('ids are not used again, and an ended one is not resumed', async () => {
    await using s = await stage()
    await s.romeo.close()
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume(s.id, 0)))).to.equal('failed item-not-found')
    const again = await s.host.client(ROMEO)
    expect((await again.send(ENABLE))[0]?.attr('id')).to.not.equal(s.id)
  })

  it('without support for it feature-not-implemented', async () => {
    await using s = await stage({ hibernation: '0s' })
    const fresh = await Fresh.open(s.host)
    expect(first(await fresh.send(resume('x', 0)))).to.equal('failed feature-not-implemented')
  })

  it('§5: after an error that the client has not confirmed nothing counts as handled, so that it sends again', async () => {
    const store = await openMemory({})
    const { failing, gates } = refusing()
    const ids: string[] = []
    {
      await using host = await testHost({ modules: [sm, failing], accounts: ['romeo'], store })
      for (const drop of [false, true]) {
        const romeo = await host.client(`romeo@example.org/${drop ? 'away' : 'here'}`)
        ids.push((await romeo.send(ENABLE))[0]?.attr('id') ?? '')
        await romeo.send(message('1', JULIET))
        if (drop) await romeo.drop()
      }
      const stopped = host.c2s.stop('system-shutdown')
      await host.settle()
      for (const open of gates) open()
      await stopped
    }
    await using host = await testHost({ modules: [sm], accounts: ['romeo'], store })
    for (const id of ids) {
      const fresh = await Fresh.open(host)
      expect(first(await fresh.send(resume(id, 0)))).to.equal('failed item-not-found')
    }
  })

  it('§5: nor after one that comes when the session is over, for which there is nobody', async () => {
    const { failing, gates } = refusing()
    await using host = await testHost({ modules: [sm, failing], accounts: ['romeo'] })
    const romeo = await host.client(ROMEO)
    const id = (await romeo.send(ENABLE))[0]?.attr('id') ?? ''
    await romeo.send(message('1', JULIET))
    romeo.session.close('system-shutdown')
    for (const open of gates) open()
    await host.settle()
    const fresh = await Fresh.open(host)
    expect(first(await fresh.send(resume(id, 0)))).to.equal('failed item-not-found')
  })

  it('§5: nor after one that comes while the session, which is over, is to be resumed', async () => {
    const { failing, gates } = refusing()
    await using host = await testHost({ modules: [sm, failing], accounts: ['romeo'] })
    const romeo = await host.client(ROMEO)
    const id = (await romeo.send(ENABLE))[0]?.attr('id') ?? ''
    await romeo.send(message('1', JULIET))
    await romeo.drop()
    const fresh = await Fresh.open(host)
    expect((await fresh.send(resume(id, 0))).elements).to.deep.equal([])
    romeo.session.end('lost')
    for (const open of gates) open()
    await host.settle()
    expect(first(fresh.take())).to.equal('failed item-not-found')
  })

  it('§5: nor after one in its queue, when h is lower than confirmed before', async () => {
    const { failing, gates } = refusing()
    await using host = await testHost({ modules: [sm, failing], accounts: ['romeo', 'juliet'] })
    const romeo = await host.client(ROMEO)
    const id = (await romeo.send(ENABLE))[0]?.attr('id') ?? ''
    const juliet = await host.client(JULIET)
    void juliet.send(`<iq type='get' id='iq' to='${ROMEO}'><query xmlns='urn:x'/></iq>`)
    await host.settle()
    await romeo.send(a(1))
    await romeo.send(message('1', JULIET))
    await romeo.drop()
    for (const open of gates) open()
    await host.settle()
    const fresh = await Fresh.open(host)
    expect(first(await fresh.send(resume(id, 0)))).to.equal('failed unexpected-request')
  })
})

/** Refuses messages, each when its gate is opened. */
function refusing() {
  const gates: (() => void)[] = []
  const failing: ModuleDef<never> = {
    name: 'failing',
    summary: 'test',
    specs: [],
    setup: (ctx) =>
      ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, async () => {
        await new Promise<void>((resolve) => gates.push(resolve))
        return { bounce: new StanzaError('internal-server-error') }
      }),
  }
  return { gates, failing }
}
