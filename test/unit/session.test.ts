/** Sessions: slow readers, conflicts, the end of a session, deadlines. */
import { expect } from 'chai'
import type { ModuleDef } from '../../server/module.ts'
import { testHost } from '../helpers/host.ts'

const available: ModuleDef<never> = {
  name: 'available',
  summary: 'test',
  specs: [],
  setup: (ctx) =>
    ctx.hook('client:in', { phase: 'rewrite', kinds: ['presence'] }, (e) => {
      e.session?.setPresence(e.stanza)
      return { stop: 'set' }
    }),
}
const message = (to: string, id: string, body = 'x'): string =>
  `<message to='${to}' type='chat' id='${id}'><body>${body}</body></message>`

describe('session: a client that does not read', () => {
  it('RFC 6120 §10.1: what no module looks at does not overtake what one is still busy with', async () => {
    const gate = Promise.withResolvers<void>()
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) => {
        ctx.hook('client:out', { phase: 'guard', kinds: ['message'] }, () =>
          gate.promise.then(() => undefined),
        )
      },
    }
    await using h = await testHost({ modules: [available, slow], accounts: ['romeo', 'juliet', 'nurse'] })
    const juliet = await h.client('juliet@example.org/a')
    const romeo = await h.client('romeo@example.org/b')
    const nurse = await h.client('nurse@example.org/c')
    await romeo.send(message('juliet@example.org/a', '1'))
    await nurse.send("<iq to='juliet@example.org/a' type='get' id='2'><x xmlns='urn:x'/></iq>")
    gate.resolve()
    await h.settle()
    expect(juliet.take().map((e) => e.attr('id'))).to.deep.equal(['1', '2'])
  })

  it('gets what was kept for it, in order, when it reads again', async () => {
    await using h = await testHost({ modules: [available], accounts: ['romeo', 'juliet'] })
    const juliet = await h.client('juliet@example.org/a')
    const romeo = await h.client('romeo@example.org/b')
    juliet.transport.blocked = true
    for (let i = 0; i < 20; i++) await romeo.send(message('juliet@example.org/a', String(i)))
    const early = juliet.take().length
    expect(early).to.be.lessThan(3)
    juliet.transport.unblock()
    await h.settle()
    expect(juliet.take().map((e) => Number(e.attr('id')))).to.deep.equal(
      Array.from({ length: 20 - early }, (_, i) => i + early),
    )
  })

  it('costs a bounded queue, then ends with resource-constraint; what was kept goes back to the sender (RFC 6120 §4.9.3.17)', async () => {
    await using h = await testHost({
      modules: [available],
      accounts: ['romeo', 'juliet'],
      limits: { maxQueueBytes: 10_000 },
    })
    const juliet = await h.client('juliet@example.org/a')
    const romeo = await h.client('romeo@example.org/b')
    juliet.transport.blocked = true
    let bounced = 0
    for (let i = 0; i < 30; i++) {
      const answers = await romeo.send(message('juliet@example.org/a', String(i), 'y'.repeat(1000)))
      bounced += answers.filter((e) => e.attr('type') === 'error').length
    }
    expect(juliet.closed).to.equal(true)
    expect(bounced).to.be.greaterThan(25)
    expect(bounced + juliet.take().filter((e) => e.name === 'message').length).to.equal(30)
  })

  it('leaves what was kept to another resource of the account', async () => {
    await using h = await testHost({ modules: [available], accounts: ['romeo', 'juliet'] })
    const phone = await h.client('juliet@example.org/phone')
    const desk = await h.client('juliet@example.org/desk')
    await desk.send('<presence/>')
    const romeo = await h.client('romeo@example.org/b')
    phone.transport.blocked = true
    for (let i = 0; i < 5; i++) await romeo.send(message('juliet@example.org/phone', String(i)))
    const written = phone.transport.written.join('')
    await phone.drop()
    const moved = desk.take().map((e) => e.attr('id'))
    expect(moved).to.deep.equal(['0', '1', '2', '3', '4'].filter((id) => !written.includes(`id='${id}'`)))
    expect(moved.length).to.be.greaterThan(2)
  })

  for (const framing of [undefined, 'frames'] as const)
    it(`leaves all of it, whatever is in between${framing === undefined ? '' : ' (RFC 7395)'}`, async () => {
      await using h = await testHost({
        modules: [available],
        accounts: ['romeo', 'juliet'],
        limits: { maxQueueBytes: 4_000_000 },
      })
      const phone = await h.client('juliet@example.org/phone', framing === undefined ? {} : { framing })
      const desk = await h.client('juliet@example.org/desk')
      const laptop = await h.client('juliet@example.org/laptop')
      const romeo = await h.client('romeo@example.org/b')
      await phone.send("<presence xmlns='jabber:client'/>")
      phone.transport.blocked = true
      const to = 'juliet@example.org'
      for (const id of ['0', '1']) await romeo.send(message(to, id))
      // nobody named: the own account
      await laptop.send("<message id='note' type='chat'><body>x</body></message>")
      // more when it is written than when it was read (RFC 6120 §11.1)
      await romeo.send(message(to, 'large', `<![CDATA[${'&'.repeat(202_000)}]]>`))
      await romeo.send(message(to, 'last'))
      const written = phone.transport.written.join('')
      await desk.send('<presence/>')
      await phone.drop()
      const moved = desk.take().map((e) => e.attr('id'))
      const sent = ['0', '1', 'note', 'large', 'last'].filter((id) => !written.includes(`id='${id}'`))
      expect(moved).to.deep.equal(sent)
      expect(moved.length).to.be.greaterThan(3)
    })
})

describe('session: binding and end', () => {
  it('closes an older session of the same address with conflict (RFC 6120 §7.7.2.2)', async () => {
    await using h = await testHost({ modules: [], accounts: ['romeo'] })
    const old = await h.client('romeo@example.org/a')
    const fresh = await h.client('romeo@example.org/a')
    expect(old.error!.firstElement()!.name).to.equal('conflict')
    expect(h.host.of('romeo')).to.deep.equal([fresh.session])
  })

  it('tells modules of the end once, with the reason', async () => {
    const ends: string[] = []
    const watch: ModuleDef<never> = {
      name: 'watch',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook(
          'session:closed',
          { phase: 'observe' },
          (e) => void ends.push(`${e.session.jid.resource} ${e.reason}`),
        ),
    }
    await using h = await testHost({ modules: [watch], accounts: ['romeo'] })
    await (await h.client('romeo@example.org/a')).close()
    await (await h.client('romeo@example.org/b')).drop()
    const c = await h.client('romeo@example.org/c')
    await c.send('<oops>')
    await c.drop()
    expect(ends).to.deep.equal(['a closed', 'b lost', 'c lost'])
    expect(h.host.count).to.equal(0)
  })

  it('ends a stream that has not logged in in time (RFC 6120 §4.9.3.4)', async () => {
    await using h = await testHost({ modules: [], accounts: [] })
    const stream = h.stream()
    await stream.send(
      `<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`,
    )
    await h.clock.advance(59_000)
    expect(stream.closed).to.equal(false)
    await h.clock.advance(10_000)
    expect(await stream.send('')).to.match(/<connection-timeout /)
    expect(stream.closed).to.equal(true)
  })

  it('tells modules when a session has been silent for long, again and again', async () => {
    let idle = 0
    const watch: ModuleDef<never> = {
      name: 'watch',
      summary: 'test',
      specs: [],
      setup: (ctx) => ctx.hook('session:idle', { phase: 'observe' }, () => void idle++),
    }
    await using h = await testHost({ modules: [watch], accounts: ['romeo'] })
    const romeo = await h.client('romeo@example.org/a')
    await h.clock.advance(290_000)
    expect(idle).to.equal(0)
    await romeo.send(' ')
    await h.clock.advance(290_000)
    expect(idle).to.equal(0) // RFC 6120 §4.6.1: white space is a sign of life
    await h.clock.advance(20_000)
    expect(idle).to.equal(1)
    await h.clock.advance(300_000)
    expect(idle).to.equal(2)
  })

  it('ends streams with system-shutdown after what they sent is stored (RFC 6120 §4.9.3.20)', async () => {
    const gates: (() => void)[] = []
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) =>
        ctx.hook(
          'client:in',
          { phase: 'store' },
          () => new Promise<void>((resolve) => void gates.push(resolve)),
        ),
    }
    await using h = await testHost({ modules: [slow], accounts: ['romeo'] })
    const romeo = await h.client('romeo@example.org/a')
    await romeo.send(message('romeo@example.org', '1'))
    const stopping = h.c2s.stop()
    await h.settle()
    expect(romeo.closed).to.equal(false)
    gates[0]!()
    await stopping
    expect(romeo.error!.firstElement()!.name).to.equal('system-shutdown')
  })

  it('refuses connections of one address beyond the limit (RFC 6120 §13.12)', async () => {
    await using h = await testHost({ modules: [], accounts: [], limits: { maxPerAddress: 2 } })
    const [a, b, c] = [h.stream(), h.stream(), h.stream()]
    const other = h.stream({ remoteAddress: '192.0.2.7' })
    await h.settle()
    expect([a, b, c, other].map((s) => s.closed)).to.deep.equal([false, false, true, false])
    await a.drop()
    expect(h.stream().closed).to.equal(false)
  })

  it('makes all streams of an address wait when they send too much together, and no others (RFC 6120 §13.12)', async () => {
    const ratePerAddress = { bytesPerSecond: 1000, burstBytes: 2000 }
    await using h = await testHost({ modules: [], accounts: ['romeo', 'juliet'], limits: { ratePerAddress } })
    const one = await h.client('romeo@example.org/a')
    const two = await h.client('romeo@example.org/b')
    const far = await h.client('juliet@example.org/c', { remoteAddress: '198.51.100.7' })
    await h.clock.advance(10_000)
    await one.send(' '.repeat(1900))
    expect([one.transport.paused, two.transport.paused]).to.deep.equal([false, false])
    await two.send(' '.repeat(1100))
    await far.send(' '.repeat(1100))
    expect([two.transport.paused, far.transport.paused]).to.deep.equal([true, false])
    await h.clock.advance(1100) // nothing is dropped: the socket is read again when the time has come
    expect(two.transport.paused).to.equal(false)
  })
})

describe('session: the end', () => {
  it('leaves nothing in memory of an account without sessions, whatever was on its way', async () => {
    const gate = Promise.withResolvers<void>()
    const slow: ModuleDef<never> = {
      name: 'slow',
      summary: 'test',
      specs: [],
      setup: (ctx) => ctx.hook('client:in', { phase: 'store', kinds: ['message'] }, () => gate.promise),
    }
    await using h = await testHost({ modules: [slow], accounts: ['romeo', 'juliet'] })
    const romeo = await h.client('romeo@example.org/a')
    await romeo.send(message('juliet@example.org', '1'))
    await romeo.close()
    expect(h.host.account('romeo')?.sessions).to.deep.equal([])
    gate.resolve()
    await h.settle()
    expect(h.host.account('romeo')).to.equal(undefined)
  })
})
