/** RFC 6121 §3, §4 with contacts at a component (gateways): the same as with contacts of another server. */
import { expect } from 'chai'
import component from '../../modules/component/index.ts'
import presence from '../../modules/presence/index.ts'
import roster from '../../modules/roster/index.ts'
import type { Element } from '../../server/xmpp/element.ts'
import { connected, DOMAIN, SECRET, start, type TestComponent } from '../helpers/component.ts'
import type { TestHost } from '../helpers/host.ts'
import { items, online } from '../helpers/im.ts'

const ICQ = `icq123@${DOMAIN}`
const ROMEO = 'romeo@example.org'
const FULL = `${ROMEO}/orchard`

const startIm = (): Promise<TestHost> => start({}, { modules: [roster, presence] })
/** "subscribe romeo@example.org -> icq123@echo.example.org" */
const said = (stanzas: readonly Element[]): string[] =>
  stanzas
    .filter((e) => e.name === 'presence')
    .map((e) => `${e.attr('type') ?? 'available'} ${e.attr('from')} -> ${e.attr('to')}`)
const pres = (type: string | undefined, from: string, to: string, inner = ''): string =>
  `<presence${type === undefined ? '' : ` type='${type}'`} from='${from}' to='${to}'>${inner}</presence>`

/** Romeo, online, and the contact at the gateway are subscribed to each other. */
async function friends(h: TestHost, gateway: TestComponent) {
  const romeo = await online(h, FULL)
  await romeo.send(`<presence to='${ICQ}' type='subscribe'/>`)
  await gateway.talk(pres('subscribed', ICQ, ROMEO) + pres('subscribe', ICQ, ROMEO))
  await romeo.send(`<presence to='${ICQ}' type='subscribed'/>`)
  await gateway.talk(pres(undefined, `${ICQ}/r`, ROMEO))
  romeo.take()
  return romeo
}

describe('component: presence', () => {
  it('§3.1: a subscription to a contact there: the request, the answer, the roster, its presence', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    const romeo = await online(h, FULL)
    const pushed = await romeo.send(
      `<presence to='${ICQ}/r' type='subscribe' id='s1'><status>hi</status></presence>`,
    )
    expect(items(pushed)).to.deep.equal([`<item jid='${ICQ}' subscription='none' ask='subscribe'/>`])
    const asked = await gateway.talk('')
    expect(said(asked)).to.deep.equal([`subscribe ${ROMEO} -> ${ICQ}`])
    expect(asked[0]?.attr('id')).to.equal('s1')
    await gateway.talk(
      pres('subscribed', ICQ, ROMEO) + pres(undefined, `${ICQ}/r`, ROMEO, '<show>away</show>'),
    )
    const got = romeo.take()
    expect(said(got)).to.deep.equal([`subscribed ${ICQ} -> ${ROMEO}`, `available ${ICQ}/r -> ${ROMEO}`])
    expect(got.at(-1)?.getChildText('show')).to.equal('away')
    expect(items(got)).to.deep.equal([`<item jid='${ICQ}' subscription='to'/>`])
  })

  it('§3.1.3: the contact asks: the request waits for a client, the answer brings it the presence', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    await gateway.talk(pres('subscribe', ICQ, ROMEO, '<status>from outside</status>'))
    const romeo = await h.client(FULL)
    const got = await romeo.send('<presence><show>chat</show></presence>')
    expect(said(got)).to.include(`subscribe ${ICQ} -> ${ROMEO}`)
    expect(await gateway.talk('')).to.deep.equal([])
    await romeo.send(`<presence to='${ICQ}' type='subscribed'/>`)
    const told = await gateway.talk('')
    expect(said(told)).to.deep.equal([`subscribed ${ROMEO} -> ${ICQ}`, `available ${FULL} -> ${ICQ}`])
    expect(told[1]?.getChildText('show')).to.equal('chat')
  })

  it('§4.2.2, §4.3.1, §4.4, §4.5.2: broadcast, probe, change and end, also of a lost connection', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    const romeo = await friends(h, gateway)
    await romeo.send('<presence><show>dnd</show></presence>')
    expect(said(await gateway.talk(''))).to.include(`available ${FULL} -> ${ICQ}`)
    await romeo.drop()
    expect(said(await gateway.talk(''))).to.deep.equal([`unavailable ${FULL} -> ${ICQ}`])
    const again = await online(h, `${ROMEO}/garden`)
    expect(said(await gateway.talk(''))).to.have.members([
      `available ${ROMEO}/garden -> ${ICQ}`,
      `probe ${ROMEO} -> ${ICQ}`,
    ])
    await gateway.talk(pres(undefined, `${ICQ}/r`, ROMEO))
    expect(said(again.take())).to.deep.equal([`available ${ICQ}/r -> ${ROMEO}`])
    await gateway.talk(pres('unavailable', `${ICQ}/r`, ROMEO))
    expect(said(again.take())).to.deep.equal([`unavailable ${ICQ}/r -> ${ROMEO}`])
    await again.close()
    expect(said(await gateway.talk(''))).to.deep.equal([`unavailable ${ROMEO}/garden -> ${ICQ}`])
  })

  it('§4.3.2: probes from there are answered: with presence, or with unsubscribed', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    await friends(h, gateway)
    expect(said(await gateway.talk(pres('probe', ICQ, ROMEO)))).to.deep.equal([`available ${FULL} -> ${ICQ}`])
    expect(said(await gateway.talk(pres('probe', `other@${DOMAIN}/x`, ROMEO)))).to.deep.equal([
      `unsubscribed ${ROMEO} -> other@${DOMAIN}`,
    ])
  })

  it('§4.6: directed presence to the gateway itself, and its end with the session', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    const romeo = await online(h, FULL)
    await romeo.send(`<presence to='${DOMAIN}'><status>log me in</status></presence>`)
    const told = await gateway.talk('')
    expect(said(told)).to.deep.equal([`available ${FULL} -> ${DOMAIN}`])
    await romeo.send(`<presence to='${DOMAIN}' type='unavailable'/><presence to='room@${DOMAIN}/nick'/>`)
    expect(said(await gateway.talk(''))).to.deep.equal([
      `unavailable ${FULL} -> ${DOMAIN}`,
      `available ${FULL} -> room@${DOMAIN}/nick`,
    ])
    await romeo.drop()
    expect(said(await gateway.talk(''))).to.deep.equal([`unavailable ${FULL} -> room@${DOMAIN}/nick`])
  })

  it('§2.5.2: a contact that is removed gets unavailable, unsubscribe and unsubscribed', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    const romeo = await friends(h, gateway)
    await gateway.talk('')
    await romeo.send(
      `<iq type='set' id='rm'><query xmlns='jabber:iq:roster'><item jid='${ICQ}' subscription='remove'/></query></iq>`,
    )
    expect(said(await gateway.talk(''))).to.deep.equal([
      `unavailable ${FULL} -> ${ICQ}`,
      `unsubscribe ${ROMEO} -> ${ICQ}`,
      `unsubscribed ${ROMEO} -> ${ICQ}`,
    ])
  })

  it('§3.3.3: the contact ends it: unavailable goes out, the roster changes', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    const romeo = await friends(h, gateway)
    const told = await gateway.talk(pres('unsubscribe', ICQ, ROMEO) + pres('unsubscribed', ICQ, ROMEO))
    expect(said(told)).to.include(`unavailable ${FULL} -> ${ICQ}`)
    expect(items(romeo.take()).at(-1)).to.equal(`<item jid='${ICQ}' subscription='none'/>`)
  })

  it('§3.1.2: a request that found nobody is sent again when the account comes online and the component is there', async () => {
    await using h = await startIm()
    const romeo = await online(h, FULL)
    const errors = await romeo.send(`<presence to='${ICQ}' type='subscribe'/>`)
    expect(said(errors)).to.deep.equal([`error ${ICQ} -> ${ROMEO}`])
    expect(items(errors)).to.deep.equal([`<item jid='${ICQ}' subscription='none' ask='subscribe'/>`])
    await romeo.close()
    const gateway = await connected(h)
    await online(h, FULL)
    expect(said(await gateway.talk(''))).to.deep.equal([`subscribe ${ROMEO} -> ${ICQ}`])
  })

  it('clients learn nothing of the end of a component; its contacts are errors at the next login', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    const romeo = await friends(h, gateway)
    await gateway.drop()
    expect(romeo.take()).to.deep.equal([])
    await romeo.close()
    const again = await h.client(FULL)
    const got = said(await again.send('<presence/>'))
    // the presence that was not told, and the probe that was not answered
    expect(got).to.have.members([
      `error ${ICQ} -> ${FULL}`,
      `error ${ICQ} -> ${ROMEO}`,
      `available ${FULL} -> ${ROMEO}`,
    ])
  })

  it('the account is deleted: the gateway learns it', async () => {
    await using h = await startIm()
    const gateway = await connected(h)
    await friends(h, gateway)
    await gateway.talk('')
    await h.host.deleteAccount('romeo')
    await h.settle()
    expect(said(await gateway.talk(''))).to.include.members([
      `unavailable ${FULL} -> ${ICQ}`,
      `unsubscribe ${ROMEO} -> ${ICQ}`,
      `unsubscribed ${ROMEO} -> ${ICQ}`,
    ])
  })

  it('the server stops: the component hears of the end of each session before its own', async () => {
    const h = await startIm()
    const gateway = await connected(h)
    await friends(h, gateway)
    await gateway.talk('')
    await h.c2s.stop()
    expect(said(await gateway.talk(''))).to.deep.equal([`unavailable ${FULL} -> ${ICQ}`])
    await h[Symbol.asyncDispose]()
    expect(gateway.error).to.equal('system-shutdown')
  })

  it('unload and load: contacts stay as they were', async () => {
    await using h = await startIm()
    const romeo = await friends(h, await connected(h))
    await h.unload('component')
    await h.load(component, { components: { [DOMAIN]: { secret: SECRET } } })
    const gateway = await connected(h)
    await romeo.send('<presence><show>xa</show></presence>')
    expect(said(await gateway.talk(''))).to.deep.equal([`available ${FULL} -> ${ICQ}`])
  })
})
