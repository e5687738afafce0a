/** Versions of rosters: RFC 6121 §2.6. */
import { expect } from 'chai'
import { openMemory } from '../../server/storage/memory.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { getRoster, items, online, setItem, startIm, vers, wholeRoster } from '../helpers/im.ts'

describe('roster: versions', () => {
  it('RFC 6121 §2.6.3: the version in hand is current: an empty result, no push', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await setItem(juliet, `<item jid='nurse@example.org'/>`))
    const received = await getRoster(await host.client('juliet@example.org/b'), ver)
    expect(received.map((e) => [e.attr('type'), e.children.length])).to.deep.equal([['result', 0]])
  })

  it('RFC 6121 §2.6.3: what changed since comes as pushes behind the empty result, last state only, in order', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    await setItem(juliet, `<item jid='gone@example.net'/>`)
    const [ver] = vers(await setItem(juliet, `<item jid='same@example.net'/>`))
    const later: Element[] = []
    for (const item of [
      `<item jid='b@example.net' name='first'/>`,
      `<item jid='a@example.net'/>`,
      `<item jid='gone@example.net' subscription='remove'/>`,
      `<item jid='b@example.net' name='second'/>`,
    ])
      later.push(...(await setItem(juliet, item)))
    const received = await getRoster(await host.client('juliet@example.org/b'), ver)
    expect([received[0]!.attr('type'), received[0]!.children.length]).to.deep.equal(['result', 0])
    expect(items(received.slice(1))).to.deep.equal([
      `<item jid='a@example.net' subscription='none'/>`,
      `<item jid='gone@example.net' subscription='remove'/>`,
      `<item jid='b@example.net' name='second' subscription='none'/>`,
    ])
    // each under the version that brought it; the last is the present one
    expect(vers(received)).to.deep.equal(vers(later).slice(1))
    expect((await wholeRoster(juliet)).attr('ver')).to.equal(vers(received).at(-1))
  })

  it('RFC 6121 §2.6.2, §2.6.3: no version, "" or an unknown one: the whole roster', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await setItem(juliet, `<item jid='nurse@example.org'/>`))
    for (const asked of [
      undefined,
      '',
      'ver14',
      `${ver}9`,
      ver!.replace(/\d+$/, '-1'),
      ver!.replace(/\d+$/, '1e0'),
    ]) {
      const received = await getRoster(await host.client('juliet@example.org/b'), asked)
      expect(received).to.have.length(1)
      const q = received[0]!.getChild('query', NS.ROSTER)!
      expect([q.attr('ver'), q.elements.length]).to.deep.equal([ver, 1])
    }
  })

  it('RFC 6121 §2.6.3: when more changed than is left the whole roster is sent', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await setItem(juliet, `<item jid='x@example.net'/>`))
    for (let i = 0; i < 11; i++) await setItem(juliet, `<item jid='x${i}@example.net'/>`)
    const received = await getRoster(await host.client('juliet@example.org/b'), ver)
    expect(received).to.have.length(1)
    expect(received[0]!.getChild('query', NS.ROSTER)!.elements).to.have.length(12)
  })

  it('RFC 6121 §2.6.3: removals are forgotten at last; who has not heard of one gets the whole roster', async () => {
    const store = await openMemory()
    await using host = await startIm({}, store)
    const juliet = await online(host, 'juliet@example.org/a')
    for (let i = 0; i < 200; i++) await setItem(juliet, `<item jid='keep${i}@example.net'/>`)
    const [old] = vers(await setItem(juliet, `<item jid='x@example.net'/>`))
    let middle = ''
    for (let i = 0; i < 150; i++) {
      await setItem(juliet, `<item jid='gone${i}@example.net'/>`)
      const ver = vers(await setItem(juliet, `<item jid='gone${i}@example.net' subscription='remove'/>`))[0]!
      if (i === 140) middle = ver
    }
    const whole = await getRoster(await host.client('juliet@example.org/b'), old)
    expect(whole[0]!.getChild('query', NS.ROSTER)!.elements).to.have.length(201)
    const partly = await getRoster(await host.client('juliet@example.org/b'), middle)
    expect(items(partly)).to.have.length(9)
    let docs = 0
    for await (const [,] of store.open('example.org', 'roster').docs('contacts').list('juliet')) docs++
    expect(docs).to.be.at.most(201 + 101)
  })

  it('RFC 6121 §2.6.3: a version of a deleted account means nothing to a new one of the same name', async () => {
    await using host = await startIm()
    const juliet = await online(host, 'juliet@example.org/a')
    const [ver] = vers(await setItem(juliet, `<item jid='nurse@example.org'/>`))
    await host.host.deleteAccount('juliet')
    await host.settle()
    await host.service('auth').create('juliet', 'x')
    const again = await host.client('juliet@example.org/a')
    const received = await setItem(again, `<item jid='romeo@example.net'/>`)
    expect(received[0]!.attr('type')).to.equal('result')
    const [answer] = await getRoster(again, ver)
    expect(answer!.getChild('query', NS.ROSTER)!.elements.map((e) => e.attr('jid'))).to.deep.equal([
      'romeo@example.net',
    ])
  })

  it('RFC 6121 §2.6.3, §2.2: a change while the roster is on its way is not lost', async () => {
    const store = await openMemory()
    {
      await using before = await startIm({}, store)
      await setItem(await before.client('juliet@example.org/a'), `<item jid='nurse@example.org'/>`)
    }
    // The roster has to be read from the store: both are under way at the same time.
    await using host = await startIm({}, store)
    const a = await host.client('juliet@example.org/a')
    const b = await host.client('juliet@example.org/b')
    const asking = getRoster(a)
    const changing = setItem(b, `<item jid='nurse@example.org' name='N'/>`)
    const received = [...(await asking), ...(await changing, a.take())]
    const shown = new Map<string, string | undefined>()
    for (const e of received)
      for (const item of e.getChild('query', NS.ROSTER)?.elements ?? [])
        shown.set(item.attr('jid')!, item.attr('name'))
    expect(Object.fromEntries(shown)).to.deep.equal({ 'nurse@example.org': 'N' })
  })

  it('RFC 6121 §2.6.1, §3.4: versions and pre-approval are announced as stream features', async () => {
    await using host = await startIm()
    const session = (await host.client('juliet@example.org/a')).session
    session.bound = false
    const features = host.host.offered(session).map((e) => e.toString())
    session.bound = true
    expect(features).to.include(`<ver xmlns='urn:xmpp:features:rosterver'/>`)
    expect(features).to.include(`<sub xmlns='urn:xmpp:features:pre-approval'/>`)
  })
})
