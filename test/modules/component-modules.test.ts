/** What modules see of components (XEP-0114 1.6): chains, requests, disco items (XEP-0030 2.5.0). */
import { expect } from 'chai'
import type { ModuleDef, StanzaEvent } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { RequestTimeout, StanzaError } from '../../server/xmpp/errors.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { connected, DOMAIN, errorOf, SECRET, start } from '../helpers/component.ts'

const ROMEO = 'romeo@example.org/orchard'

describe('component: modules and it', () => {
  it('remote:out and remote:in see what passes, and may stop, change and bounce it', async () => {
    const seen: string[] = []
    const spy: ModuleDef<never> = {
      name: 'spy',
      summary: 'test',
      specs: [],
      setup(ctx) {
        const look = (chain: string) => (e: StanzaEvent) => {
          if (e.stanza.attr('type') === 'error') return undefined
          seen.push(`${chain} ${e.from.toString()} ${e.to.toString()}`)
          if (e.stanza.attr('id') === 'stop') return { stop: 'test' }
          if (e.stanza.attr('id') === 'bounce') return { bounce: new StanzaError('policy-violation') }
          e.stanza = e.stanza.append(el('seen', 'urn:spy'))
          return undefined
        }
        ctx.hook('remote:out', { phase: 'rewrite', kinds: ['message'] }, look('out'))
        ctx.hook('remote:in', { phase: 'rewrite', kinds: ['message'] }, look('in'))
      },
    }
    await using h = await start({}, { modules: [spy] })
    const one = await connected(h)
    const romeo = await h.client(ROMEO)
    const three = (from: string, to: string) =>
      ['1', 'stop', 'bounce'].map((id) => `<message${from} to='${to}' id='${id}'/>`).join('')
    expect((await romeo.send(three('', DOMAIN))).map(errorOf)).to.deep.equal(['modify policy-violation'])
    expect((await one.talk('')).map((e) => `${e.attr('id')} ${e.firstElement()?.name}`)).to.deep.equal([
      '1 seen',
    ])
    expect((await one.talk(three(` from='${DOMAIN}'`, ROMEO))).map(errorOf)).to.deep.equal([
      'modify policy-violation',
    ])
    expect(romeo.take().map((e) => `${e.attr('id')} ${e.firstElement()?.name}`)).to.deep.equal(['1 seen'])
    expect(new Set(seen)).to.deep.equal(new Set([`out ${ROMEO} ${DOMAIN}`, `in ${DOMAIN} ${ROMEO}`]))
  })

  it('XEP-0030: it is an item of the host it is below, while it is connected', async () => {
    await using h = await start({
      components: { [DOMAIN]: { secret: SECRET }, 'b.example.net': { secret: 'b' } },
    })
    const romeo = await h.client(ROMEO)
    const items = async () =>
      (
        await romeo.send(`<iq type='get' to='example.org' id='d'><query xmlns='${NS.DISCO_ITEMS}'/></iq>`)
      ).flatMap((e) => e.firstElement()?.elements.map((item) => item.attr('jid')) ?? [])
    expect(await items()).to.deep.equal([])
    const one = await connected(h)
    await connected(h, { to: 'b.example.net', secret: 'b' })
    expect(await items()).to.deep.equal([DOMAIN])
    await one.drop()
    expect(await items()).to.deep.equal([])
  })

  it('RFC 6120 §8.2.3: a request of a module is answered by whom it asked, with its id, and nobody else', async () => {
    let ask: (to: string) => Promise<string> = () => expect.fail('not set up')
    const asking: ModuleDef<never> = {
      name: 'asking',
      summary: 'test',
      specs: [],
      setup(ctx) {
        ask = async (to) => {
          const from = parseJid('romeo@example.org')
          const opts = { type: 'set', timeoutMs: 5000, from } as const
          try {
            return (await ctx.request(parseJid(to), el('ask', 'urn:x'), opts))?.name ?? 'empty'
          } catch (error) {
            return error instanceof RequestTimeout
              ? 'timeout'
              : error instanceof StanzaError
                ? error.condition
                : String(error)
          }
        }
      },
    }
    await using h = await start(
      { components: { [DOMAIN]: { secret: SECRET }, 'b.example.org': { secret: 'b' } } },
      { modules: [asking] },
    )
    expect(await ask(DOMAIN)).to.equal('remote-server-timeout')
    const [one, other] = [await connected(h), await connected(h, { to: 'b.example.org', secret: 'b' })]
    const asked = async () => {
      const [request] = await one.talk('')
      expect(request?.attr('from')).to.equal('romeo@example.org')
      return request?.attr('id') ?? ''
    }
    const answer = (type: string, from: string, id: string, child = '<yes xmlns="urn:x"/>') =>
      `<iq type='${type}' from='${from}' to='romeo@example.org' id='${id}'>${child}</iq>`
    const first = ask(DOMAIN)
    await h.settle()
    const id = await asked()
    await one.talk(answer('result', DOMAIN, 'another id', '<no xmlns="urn:x"/>'))
    await one.talk(answer('result', `a@${DOMAIN}`, id, '<no xmlns="urn:x"/>'))
    await other.talk(answer('result', 'b.example.org', id, '<no xmlns="urn:x"/>'))
    await one.talk(answer('result', DOMAIN, id))
    expect(await first).to.equal('yes')
    const second = ask(DOMAIN)
    await h.settle()
    const condition = `<error type='cancel'><not-allowed xmlns='${NS.STANZAS}'/></error>`
    await one.talk(answer('error', DOMAIN, await asked(), condition))
    expect(await second).to.equal('not-allowed')
    const third = ask(`a@${DOMAIN}`)
    await h.clock.advance(5000)
    expect(await third).to.equal('timeout')
  })
})
