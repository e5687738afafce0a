/** Limits on what a client may send: the socket is read more slowly, nothing is dropped, and nobody else notices (RFC 6120 §13.12). */
import { expect } from 'chai'
import { Pair } from './pair.ts'
import { PASSWORD, Stage } from './stage.ts'

const MB = 1024 * 1024

describe('input rate', function () {
  this.timeout(60_000)

  for (const via of ['tcp', 'tls', 'websocket'] as const)
    it(`20 MB sent as fast as possible over ${via} arrive whole and in order, not faster than the limit, in little memory`, async () => {
      await using stage = await Stage.start({ limits: { rate: '16 MiB', burst: '1 MiB' } })
      await stage.do('accounts', ['fast', 'taker', 'a', 'b'], PASSWORD)
      const taker = await stage.login('taker')
      taker.sendStanza('<presence/>')
      await taker.ping()
      const fast = await stage.login('fast', 'r', { via })
      await using pair = await Pair.start(stage.place, ['a', 'b'], PASSWORD)
      let arrived = 0
      let expected = 0
      let rest = ''
      taker.onText = (text) => {
        const parts = (rest + text).split('</message>')
        rest = parts.pop() ?? ''
        for (const part of parts) {
          const n = Number(/ id=["'](\d+)["']/.exec(part)?.[1])
          if (n === expected) expected++
          arrived += part.length
        }
      }
      const body = `<body>${'x'.repeat(1900)}</body></message>`
      const count = 10_000
      const began = performance.now()
      const base = (await stage.do('memory')).used
      let highest = base
      // everything is given to the kernel at once; how fast the server reads is up to it
      const sending = (async () => {
        for (let i = 0; i < count; i += 30) {
          let piece = ''
          for (let n = i; n < Math.min(i + 30, count); n++) {
            const message = `<message xmlns='jabber:client' type='chat' id='${n}' to='taker@${stage.place.domain}/r'>${body}`
            if (via === 'websocket') await fast.sendAll(message)
            else piece += message
          }
          if (piece !== '') await fast.sendAll(piece)
          if (i % 1500 === 0) highest = Math.max(highest, (await stage.do('memory')).used)
        }
      })()
      await sending
      await taker.when(
        () => expected === count,
        () => `${expected} of ${count} messages came in order`,
      )
      const seconds = (performance.now() - began) / 1000
      expect(arrived).to.be.above(19 * MB)
      // 20 MB less the burst at 16 MB a second; what the kernel holds counts when it is read
      expect(seconds, 'seconds').to.be.above(1)
      expect(highest - base, 'memory').to.be.below(8 * MB)
      expect((await pair.latencies()).median).to.be.below(250)
    })
})
