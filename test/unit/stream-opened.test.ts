/** Chain 'stream:opened': features wait for it, and so does what the client has sent behind its header. */
import { expect } from 'chai'
import { defineModule, type StreamFeature } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { testHost } from '../helpers/host.ts'

const HEADER =
  "<stream:stream to='example.org' from='juliet@example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

function knowing(opened: (jid: string) => void | Promise<void>) {
  const asked: string[] = []
  const feature: StreamFeature = {
    ns: 'urn:x:known',
    streams: ['c2s'],
    needs: [],
    forbids: [],
    advertise: () => el('known', 'urn:x:known'),
    handle: (_, element) => {
      asked.push(element.name)
      return { reply: el('done', 'urn:x:known', { what: element.name }) }
    },
  }
  const module = defineModule({
    name: 'knowing',
    summary: 'test',
    specs: [],
    setup(ctx) {
      ctx.streamFeature(feature)
      ctx.hook('stream:opened', { phase: 'observe' }, ({ session }) =>
        opened(`${session.claimed?.toString()} ${session.host}`),
      )
    },
  })
  return { module, asked }
}

describe('stream:opened', () => {
  it('knows host and claimed address; without a promise the features follow at once', async () => {
    const seen: string[] = []
    const { module } = knowing((who) => void seen.push(who))
    await using host = await testHost({ modules: [module] })
    expect(await host.stream().send(HEADER)).to.match(/<known xmlns='urn:x:known'\/><\/stream:features>$/)
    expect(seen).to.deep.equal(['juliet@example.org example.org'])
  })

  it('a promise holds the features, and what follows the header in the same chunk or later', async () => {
    const gate = Promise.withResolvers<void>()
    const { module, asked } = knowing(() => gate.promise)
    await using host = await testHost({ modules: [module] })
    const stream = host.stream()
    expect(await stream.send(`${HEADER}<one xmlns='urn:x:known'/>`)).to.not.contain('features')
    expect(await stream.send("<two xmlns='urn:x:known'/>")).to.equal('')
    expect(asked).to.deep.equal([])
    gate.resolve()
    const answer = await stream.send('')
    expect(answer).to.match(
      /^<stream:features>.*<\/stream:features><done [^>]*what='one'\/><done [^>]*what='two'\/>$/,
    )
  })

  it('what fails or takes too long does not stop the stream', async () => {
    const never = new Promise<void>(() => undefined)
    for (const opened of [() => Promise.reject(new Error('store')), () => never]) {
      const { module } = knowing(opened)
      const errors: string[] = []
      await using host = await testHost({
        modules: [module],
        onLog: (level, message) => void (level === 'error' && errors.push(message)),
      })
      const stream = host.stream()
      await stream.send(HEADER)
      await host.clock.advance(15_000)
      expect(await stream.send("<one xmlns='urn:x:known'/>")).to.contain("what='one'")
      expect(errors).to.deep.equal(['hook stream:opened of module knowing failed'])
    }
  })

  it('a stream that has ended meanwhile gets nothing more', async () => {
    const gate = Promise.withResolvers<void>()
    const { module, asked } = knowing(() => gate.promise)
    await using host = await testHost({ modules: [module] })
    const stream = host.stream()
    await stream.send(`${HEADER}<one xmlns='urn:x:known'/>`)
    await stream.drop()
    gate.resolve()
    expect(await stream.send('')).to.equal('')
    expect(stream.closed).to.equal(true)
    expect(asked).to.deep.equal([])
  })
})
