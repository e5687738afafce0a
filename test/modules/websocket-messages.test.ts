/** modules/websocket over real sockets: messages and back-pressure; frames are made by hand where a library would not send them. */
import { once } from 'node:events'
import { expect } from 'chai'
import { closeCode, frame, OPCODE, startWebSocket as start, textOf } from '../helpers/websocket.ts'

describe('websocket messages', () => {
  describe('messages', () => {
    it('go both ways, one text message for one element (RFC 7395 §3.2, §3.3.3)', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      const got: string[] = []
      ws.on('message', (data, isBinary) => got.push(`${isBinary} ${textOf(data)}`))
      ws.send('<open xmlns="x"/>')
      ws.send('<ü>😀</ü>')
      await sink.until(() => sink.chunks.length === 2)
      expect(sink.chunks).to.deep.equal(['<open xmlns="x"/>', '<ü>😀</ü>'])
      sink.call(() => {
        for (const text of ['<a/>', '<ü>😀</ü>', `<b>${'x'.repeat(70_000)}</b>`]) sink.transport.write(text)
      })
      while (got.length < 3) await once(ws, 'message')
      expect(got).to.deep.equal(['false <a/>', 'false <ü>😀</ü>', `false <b>${'x'.repeat(70_000)}</b>`])
      expect(sink.reentered).to.equal(false)
    })

    it('of one turn leave in one write', async () => {
      await using t = await start()
      const { socket, sink, received } = await t.raw()
      sink.call(() => {
        for (let i = 0; i < 50; i++) sink.transport.write(`<m${i}/>`)
      })
      const [chunk] = (await once(socket, 'data')) as [Buffer]
      expect(chunk.includes('<m0/>') && chunk.includes('<m49/>')).to.equal(true)
      expect(received().includes('<m49/>')).to.equal(true)
    })

    it('may come in fragments with control frames between them (RFC 6455 §5.4)', async () => {
      await using t = await start()
      const { socket, sink, received } = await t.raw()
      const euro = Buffer.from('<e>€</e>') // cut inside the character
      socket.write(frame(OPCODE.TEXT, euro.subarray(0, 4), { fin: false }))
      socket.write(frame(OPCODE.PING, 'are you there'))
      socket.write(frame(0, euro.subarray(4, 5), { fin: false }))
      socket.write(frame(OPCODE.PONG, ''))
      socket.write(frame(0, '', { fin: false }))
      socket.write(frame(0, euro.subarray(5)))
      await sink.until(() => sink.chunks.length === 1)
      expect(sink.chunks).to.deep.equal(['<e>€</e>'])
      while (!received().includes('are you there')) await once(socket, 'data')
      expect(received()[0], 'the pong, unmasked').to.equal(128 + OPCODE.PONG)
    })

    it('may come byte by byte', async () => {
      await using t = await start()
      const { socket, sink } = await t.raw()
      socket.setNoDelay(true)
      for (const byte of Buffer.concat([frame(OPCODE.TEXT, '<a/>'), frame(OPCODE.TEXT, 'x'.repeat(130))]))
        await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve))
      await sink.until(() => sink.chunks.length === 2)
      expect(sink.chunks).to.deep.equal(['<a/>', 'x'.repeat(130)])
    })

    for (const [what, bytes, code] of [
      ['is binary (RFC 7395 §3.2)', frame(OPCODE.BINARY, '<a/>'), 1003],
      ['is not masked (RFC 6455 §5.1)', frame(OPCODE.TEXT, '<a/>', { mask: false }), 1002],
      ['is not UTF-8 (RFC 6455 §8.1)', frame(OPCODE.TEXT, Buffer.from([0x3c, 0xff])), 1007],
      ['has reserved bits (RFC 6455 §5.2)', frame(OPCODE.TEXT, '<a/>', { rsv: 64 }), 1002],
      ['has a reserved opcode (RFC 6455 §5.2)', frame(3, '<a/>'), 1002],
      ['continues nothing (RFC 6455 §5.4)', frame(0, '<a/>'), 1002],
      ['is a fragmented ping (RFC 6455 §5.5)', frame(OPCODE.PING, 'x', { fin: false }), 1002],
      ['is a ping of more than 125 bytes (RFC 6455 §5.5)', frame(OPCODE.PING, 'x'.repeat(126)), 1002],
      ['is larger than the limit', frame(OPCODE.TEXT, 'x'.repeat(20_000)), 1009],
    ] as const)
      it(`that ${what} closes the connection with ${code}`, async () => {
        await using t = await start({ maxMessage: '16 KiB' })
        const { socket, sink, received } = await t.raw()
        socket.write(bytes)
        while (closeCode(received()) === undefined) await once(socket, 'data')
        expect(closeCode(received())).to.equal(code)
        socket.end(frame(OPCODE.CLOSE, Buffer.from([3, 232])))
        await sink.until(() => sink.events.includes('closed'))
        expect(sink.events).to.deep.equal(['closed'])
        expect(sink.error).to.be.instanceOf(Error)
      })

    it('may be as large as the stream says, twice of it before the connection ends', async () => {
      await using t = await start({ maxMessage: '16 KiB' })
      const { ws, sink } = await t.connect()
      sink.transport.setMaxFrame?.(50_000)
      ws.send('x'.repeat(100_000))
      await sink.until(() => sink.chunks.length === 1)
      ws.send('x'.repeat(100_001))
      const [code] = (await once(ws, 'close')) as [number]
      expect(code).to.equal(1009)
    })

    it('in too many fragments close the connection', async () => {
      await using t = await start()
      const { socket, received } = await t.raw()
      socket.write(frame(OPCODE.TEXT, 'x', { fin: false }))
      socket.write(Buffer.concat(Array.from({ length: 1024 }, () => frame(0, '', { fin: false }))))
      while (closeCode(received()) === undefined) await once(socket, 'data')
      expect(closeCode(received())).to.equal(1008)
    })
  })

  describe('back-pressure', () => {
    it('pause() stops delivery, what was decoded already too; resume() goes on in order', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      const all = Array.from({ length: 3000 }, (_, i) => `<m i="${i}">${'x'.repeat(100)}</m>`)
      const { transport } = sink
      const data = sink.data.bind(sink)
      sink.data = (chunk) => {
        data(chunk)
        if (sink.chunks.length % 100 !== 0) return
        transport.pause()
        const count = sink.chunks.length
        setImmediate(() => {
          expect(sink.chunks.length, 'nothing came while paused').to.equal(count)
          sink.call(() => transport.resume())
        })
      }
      for (const text of all) ws.send(text)
      await sink.until(() => sink.chunks.length === all.length)
      expect(sink.chunks).to.deep.equal(all)
      expect(sink.reentered).to.equal(false)
    })

    it('keeps little of what a client sends to a paused connection', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      sink.transport.pause()
      for (let i = 0; i < 2000; i++) ws.send('y'.repeat(10_000))
      await new Promise(setImmediate)
      expect(ws.bufferedAmount).to.be.greaterThan(10_000_000)
      expect(sink.chunks).to.have.length(0)
      sink.transport.resume()
      await sink.until(() => sink.chunks.length === 2000)
    })

    it('tells when the client is slow, and drains', async () => {
      await using t = await start()
      const { ws, sink } = await t.connect()
      ws.pause()
      const results: boolean[] = []
      sink.call(() => {
        for (let i = 0; i < 100; i++) results.push(sink.transport.write('w'.repeat(100_000)))
      })
      expect(results.at(-1)).to.equal(false)
      expect(sink.transport.buffered).to.be.greaterThan(1_000_000)
      ws.resume()
      await sink.until(() => sink.events.includes('drain'))
      expect(sink.transport.buffered).to.equal(0)
    })
  })
})
