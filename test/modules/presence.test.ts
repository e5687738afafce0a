/** Presence through a real host: RFC 6121 §4. Probes and directed presence, and load, have files of their own. */
import { expect } from 'chai'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { PresenceChange } from '../../modules/presence/service.ts'
import { defineModule } from '../../server/module.ts'
import { testHost } from '../helpers/host.ts'
import { befriend, condition, fromRemote, online, seen, startIm } from '../helpers/im.ts'

describe('presence: available', () => {
  it('RFC 6121 §4.2.2: initial presence reaches subscribers, all own resources, and nobody else', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    const nurse = await online(host, 'nurse@example.org/x')
    await befriend(juliet, romeo)
    const chamber = await host.client('juliet@example.org/chamber')
    const echo = await chamber.send(`<presence id='p1'><show>away</show><c xmlns='urn:x'/></presence>`)
    expect(seen(echo)).to.have.members([
      'available juliet@example.org/chamber',
      'available juliet@example.org/balcony',
      'available romeo@example.org/orchard',
    ])
    const [toRomeo, ...more] = romeo.take()
    expect(more).to.have.length(0)
    expect(toRomeo!.attrs).to.deep.equal({
      id: 'p1',
      from: 'juliet@example.org/chamber',
      to: 'romeo@example.org',
    })
    expect(toRomeo!.elements.map((e) => e.toString('jabber:client'))).to.deep.equal([
      '<show>away</show>',
      `<c xmlns='urn:x'/>`,
    ])
    expect(seen(juliet.take())).to.deep.equal(['available juliet@example.org/chamber'])
    expect(nurse.take()).to.have.length(0)
  })

  it('RFC 6121 §4.4.2: later presence goes to subscribers and own resources; nothing is fetched again', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    const echo = await juliet.send('<presence><show>dnd</show></presence>')
    expect(seen(echo)).to.deep.equal(['available juliet@example.org/balcony'])
    expect(echo[0]!.attr('to')).to.equal('juliet@example.org')
    expect(romeo.take().map((e) => e.getChildText('show'))).to.deep.equal(['dnd'])
  })

  it('RFC 6121 §3: only those with a subscription get it: one way is one way', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await romeo.send(`<presence to='juliet@example.org' type='subscribe'/>`)
    await juliet.send(`<presence to='romeo@example.org' type='subscribed'/>`)
    romeo.take()
    juliet.take()
    await romeo.send('<presence><show>away</show></presence>')
    expect(juliet.take()).to.have.length(0)
    await juliet.send('<presence><show>away</show></presence>')
    expect(seen(romeo.take())).to.include('available juliet@example.org/balcony')
  })

  it('RFC 6121 §4.2.3: only available resources of a contact get it', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    const connected = await host.client('romeo@example.org/connected')
    await befriend(juliet, romeo)
    await juliet.send('<presence/>')
    expect(romeo.take()).to.have.length(1)
    expect(connected.take()).to.have.length(0)
  })

  it('RFC 6120 §4.7.4: contacts get the language of the stream', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    juliet.session.lang = 'cs'
    await juliet.send('<presence><status>Dvořím se</status></presence>')
    await juliet.send(`<presence xml:lang='en'><status>Wooing</status></presence>`)
    expect(romeo.take().map((e) => e.attr('xml:lang'))).to.deep.equal(['cs', 'en'])
  })

  it('RFC 6121 §4.5.2: what follows unavailable presence is initial presence again', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await juliet.send(`<presence type='unavailable'/>`)
    romeo.take()
    expect(seen(await juliet.send('<presence/>'))).to.have.members([
      'available juliet@example.org/balcony',
      'available romeo@example.org/orchard',
    ])
    expect(seen(romeo.take())).to.deep.equal(['available juliet@example.org/balcony'])
  })
})

describe('presence: unavailable', () => {
  it('RFC 6121 §4.5.2: the full stanza goes to subscribers, to other resources and back to the sender', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const chamber = await online(host, 'juliet@example.org/chamber')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    chamber.take()
    const echo = await juliet.send(`<presence type='unavailable'><status>gone</status></presence>`)
    for (const received of [echo, chamber.take(), romeo.take()]) {
      expect(seen(received)).to.deep.equal(['unavailable juliet@example.org/balcony'])
      expect(received[0]!.getChildText('status')).to.equal('gone')
    }
    expect(juliet.session.presence).to.equal(undefined)
    expect(juliet.session.priority).to.equal(undefined)
  })

  for (const end of ['close', 'drop'] as const) {
    it(`RFC 6121 §4.5.2: the server says it for a client that does not (${end})`, async () => {
      await using host = await startIm()
      const juliet = await online(host, 'juliet@example.org/balcony')
      const chamber = await online(host, 'juliet@example.org/chamber')
      const romeo = await online(host, 'romeo@example.org/orchard')
      await befriend(juliet, romeo)
      chamber.take()
      await juliet[end]()
      expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
      expect(seen(chamber.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
    })
  }

  it('RFC 6121 §4.5.2: once is enough: nothing more at the end of a session that has said it', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await juliet.send(`<presence type='unavailable'/>`)
    romeo.take()
    await juliet.close()
    expect(romeo.take()).to.have.length(0)
  })

  it('RFC 6120 §7.7.2.2: a session that takes the place of another is not declared gone', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    const second = await host.client('juliet@example.org/balcony')
    await second.send('<presence><show>chat</show></presence>')
    await host.settle()
    expect(juliet.closed).to.equal(true)
    expect(romeo.take().at(-1)?.getChildText('show')).to.equal('chat')
    await second.close()
    expect(seen(romeo.take())).to.deep.equal(['unavailable juliet@example.org/balcony'])
  })
})

describe('presence: syntax', () => {
  const bad: readonly (readonly [rule: string, xml: string])[] = [
    ['§4.7.1: an unknown type', `<presence type='available'/>`],
    ['§4.7.2.3: priority 128', '<presence><priority>128</priority></presence>'],
    ['§4.7.2.3: priority -129', '<presence><priority>-129</priority></presence>'],
    ['§4.7.2.3: priority 1.5', '<presence><priority>1.5</priority></presence>'],
    ['§4.7.2.3: an empty priority', '<presence><priority/></presence>'],
    ['§4.7.2.3: two priorities', '<presence><priority>1</priority><priority>1</priority></presence>'],
    ['§4.7.2.1: an unknown show', '<presence><show>online</show></presence>'],
    ['§4.7.2.1: two shows', '<presence><show>away</show><show>xa</show></presence>'],
    [
      '§4.7.2.3: in directed presence too',
      `<presence to='romeo@example.org'><priority>x</priority></presence>`,
    ],
  ]
  for (const [rule, xml] of bad) {
    it(`RFC 6121 ${rule}: bad-request, and the session's presence stays`, async () => {
      await using host = await startIm()
      const juliet = await online(host, 'juliet@example.org/balcony')
      expect((await juliet.send(xml)).map(condition)).to.deep.equal(['bad-request'])
      expect(juliet.session.priority).to.equal(0)
    })
  }

  it('RFC 6121 §4.7.2.3: priorities from -128 to 127', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    for (const [text, priority] of [
      ['-128', -128],
      [' 127 ', 127],
      ['+5', 5],
      ['-0', -0],
    ] as const) {
      await juliet.send(`<presence><priority>${text}</priority></presence>`)
      expect(juliet.session.priority).to.equal(priority)
    }
  })

  it('RFC 6121 §4.5.1: unavailable presence has no show and no priority; an empty show is none', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const [available] = await juliet.send('<presence><show/><status>s</status></presence>')
    expect(available!.elements.map((e) => e.name)).to.deep.equal(['status'])
    const [gone] = await juliet.send(
      `<presence type='unavailable'><show>xa</show><priority>1</priority><status>s</status></presence>`,
    )
    expect(gone!.elements.map((e) => e.name)).to.deep.equal(['status'])
  })

  it('RFC 6121 §4.3: a probe by a client without an addressee is no error; nor is an error to nobody', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    expect(await juliet.send(`<presence type='probe'/>`)).to.have.length(0)
    expect(await juliet.send(`<presence type='error'/>`)).to.have.length(0)
  })

  it('RFC 6121 §8.5.3.1: an error reaches the resource it is for and changes nothing', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const xml = `<presence from='romeo@example.net' to='juliet@example.org/balcony' type='error'><error type='cancel'><remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>`
    await fromRemote(host, xml)
    expect(juliet.take().map(condition)).to.deep.equal(['remote-server-not-found'])
    expect(juliet.session.presence).to.not.equal(undefined)
  })
})

describe('presence: for other modules', () => {
  it('the chain presence:changed tells of every step, with what was before', async () => {
    const steps: string[] = []
    const word = (e: PresenceChange['presence']): string =>
      e === undefined ? '-' : (e.getChildText('show') ?? 'on')
    const watcher = defineModule({
      name: 'watcher',
      summary: 'test',
      specs: [],
      setup(ctx) {
        ctx.hook('presence:changed', { phase: 'observe' }, ({ session, presence: now, previous }) => {
          expect(session.presence).to.equal(now)
          steps.push(`${word(previous)}>${word(now)}`)
        })
      },
    })
    await using host = await testHost({ modules: [roster, presence, watcher], accounts: ['juliet'] })
    const juliet = await host.client('juliet@example.org/a')
    for (const xml of [
      '<presence/>',
      '<presence><show>dnd</show></presence>',
      `<presence type='unavailable'/>`,
      `<presence type='unavailable'/>`,
      '<presence/>',
    ])
      await juliet.send(xml)
    await juliet.drop()
    expect(steps).to.deep.equal(['->on', 'on>dnd', 'dnd>-', '->on', 'on>-'])
  })

  it('the service knows when an account was last there', async () => {
    await using host = await startIm()
    const service = host.service('presence')
    expect(await service.last('juliet')).to.equal(undefined)
    const juliet = await online(host, 'juliet@example.org/a')
    expect(await service.last('juliet')).to.equal(undefined)
    await host.clock.advance(5000)
    await juliet.send(`<presence type='unavailable'><status>bye</status></presence>`)
    expect(await service.last('juliet')).to.deep.equal({ at: host.clock.now(), status: 'bye' })
  })

  it('unloaded, presence is not told to contacts, and stanzas go on', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/balcony')
    const romeo = await online(host, 'romeo@example.org/orchard')
    await befriend(juliet, romeo)
    await host.unload('presence')
    await juliet.send('<presence><show>away</show></presence>')
    expect(romeo.take()).to.have.length(0)
    await juliet.send(`<message to='romeo@example.org/orchard'><body>x</body></message>`)
    expect(romeo.take()).to.have.length(1)
  })
})
