/** SIGTERM and SIGHUP as the operator sends them, to the program itself. */
import { expect } from 'chai'
import { once } from 'node:events'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { createCertificate } from '../../certs/make-dev.ts'
import { Program } from './program.ts'
import { inParallel, names, PASSWORD } from './stage.ts'
import { Wire } from './wire.ts'

const SHUTDOWN =
  /<stream:error[^>]*><system-shutdown[^>]*>(?:(?!<\/stream:error>).)*<\/stream:error><\/stream:stream>$/

async function login(
  program: Program,
  local: string,
  resource: string,
  via: 'tcp' | 'tls' | 'websocket' = 'tcp',
): Promise<Wire> {
  const wire = await Wire.open(program.place, { via })
  await wire.login(local, PASSWORD, resource)
  return wire
}

describe('SIGTERM', function () {
  this.timeout(60_000)

  it('while 100 clients chat: each gets system-shutdown, what was acknowledged is stored, exit code 0 (RFC 6120 §4.9.3.19)', async () => {
    await using program = await Program.make()
    await program.command(['user', 'add', 'romeo@localhost'], `${PASSWORD}\n`)
    await program.start()
    const wires = await inParallel(names('r', 100), 20, (name) => login(program, 'romeo', name))
    const texts = wires.map(() => '')
    const got = wires.map(() => 0)
    const seen = new Set<string>()
    wires.forEach((wire, i) => {
      const partner = `romeo@localhost/r${i % 2 === 0 ? i + 1 : i - 1}`
      let n = 0
      const say = (): boolean =>
        wire.send(`<message type='chat' id='c${i}-${n}' to='${partner}'><body>${i}-${n++}</body></message>`)
      wire.onText = (text) => {
        texts[i] = ((texts[i] ?? '') + text).slice(-20_000)
        for (const [, body = ''] of text.matchAll(/<body>(\d+-\d+)<\/body>/g)) seen.add(body)
        got[i] = (got[i] ?? 0) + text.split('<body>').length - 1
        for (let k = text.split('<body>').length - 1; k > 0; k--) say()
      }
      for (let k = 0; k < 4; k++) say()
    })
    // one of them changes the roster all the time
    const acknowledged: number[] = []
    const changer = await login(program, 'romeo', 'changer')
    let changes = 0
    const change = (): boolean =>
      changer.send(
        `<iq type='set' id='s${changes}'><query xmlns='jabber:iq:roster'><item jid='c${changes++}@x.example'/></query></iq>`,
      )
    changer.onText = (text) => {
      for (const [, one, two] of text.matchAll(
        /<iq[^>]*?id=["']s(\d+)["'][^>]*type=["']result["']|<iq[^>]*type=["']result["'][^>]*?id=["']s(\d+)["']/g,
      )) {
        acknowledged.push(Number(one ?? two))
        change()
      }
    }
    for (let k = 0; k < 3; k++) change()
    await changer.when(
      () => acknowledged.length > 20 && seen.size > 2000,
      () => `${acknowledged.length} changes, ${seen.size} messages`,
    )
    const exit = await program.stop()
    expect(exit).to.include({ code: 0, signal: null })
    expect(exit.ms).to.be.below(10_000)
    for (const wire of [...wires, changer]) await wire.ended()
    for (const [i, text] of texts.entries()) expect(text, `the end of client ${i}`).to.match(SHUTDOWN)
    expect(program.lines.filter((line) => line.includes('"level":50'))).to.deep.equal([])

    await program.start()
    const again = await login(program, 'romeo', 'again')
    again.send(`<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>`)
    const roster = await again.until(/<iq[^>]*id=["']r["'][^>]*>[^]*?<\/iq>/)
    const missing = acknowledged.filter((n) => !roster.includes(`c${n}@x.example`))
    expect(missing, 'roster changes that were acknowledged and are lost').to.deep.equal([])
    again.drop()
  })

  it('with clients that do not read, do not answer, or never got on: it ends all the same, exit code 0', async () => {
    await using program = await Program.make({ limits: { closeTimeout: '1s' } })
    await program.command(['user', 'add', 'romeo@localhost'], `${PASSWORD}\n`)
    await program.start()
    const { ports } = program.place
    const mute = await login(program, 'romeo', 'mute')
    mute.stopReading()
    const web = await login(program, 'romeo', 'web', 'websocket')
    web.stopReading()
    const secret = await login(program, 'romeo', 'tls', 'tls')
    secret.stopReading()
    const sender = await login(program, 'romeo', 'sender')
    for (let i = 0; i < 3000; i++)
      for (const to of ['mute', 'web', 'tls'])
        sender.send(
          `<message type='headline' to='romeo@localhost/${to}'><body>${'x'.repeat(1000)}</body></message>`,
        )
    await sender.ping()
    const sockets = [ports.c2s, ports.c2sTls, ports.http, ports.https].map((port) =>
      connectTcp({ host: '127.0.0.1', port }),
    )
    for (const socket of sockets) {
      socket.on('error', () => undefined)
      await once(socket, 'connect')
    }
    sockets[2]?.write('GET / HTTP/1.1\r\nHost: localhost\r\n')
    const exit = await program.stop()
    expect(exit).to.include({ code: 0, signal: null })
    expect(exit.ms).to.be.below(15_000)
    for (const one of [mute, web, secret, sender]) one.drop()
    for (const socket of sockets) socket.destroy()
  })
})

/** The certificate that a new connection gets. */
async function served(program: Program): Promise<string> {
  const socket = connectTls({
    host: '127.0.0.1',
    port: program.place.ports.c2sTls,
    servername: 'localhost',
    rejectUnauthorized: false,
  })
  await once(socket, 'secureConnect')
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256
}

describe('SIGHUP', function () {
  this.timeout(60_000)

  it('new certificate and options for new connections, old streams live; what is broken is refused and changes nothing', async () => {
    await using program = await Program.make()
    await program.command(['user', 'add', 'romeo@localhost'], `${PASSWORD}\n`)
    await program.start()
    const old = await Promise.all(
      (['tcp', 'tls', 'websocket'] as const).map((via) => login(program, 'romeo', via, via)),
    )
    const alive = async (): Promise<void> => {
      for (const wire of old) await wire.ping(`p${Math.random().toString(36).slice(2)}`)
    }
    const hup = async (pattern: RegExp): Promise<void> => {
      const from = program.lines.length
      program.signal('SIGHUP')
      await program.line(pattern, from)
    }
    const READ = /were read again/
    const REFUSED = /the new configuration is not used/
    const before = await served(program)
    const folder = join(program.folder, 'certs')
    const day = 86_400_000
    const fresh = await createCertificate({
      name: 'localhost',
      hosts: ['localhost'],
      notBefore: new Date(Date.now() - day),
      notAfter: new Date(Date.now() + 90 * day),
    })
    for (const kind of ['crt', 'key'] as const)
      await copyFile(join(folder, `localhost.${kind}`), join(program.folder, `old.${kind}`))

    await writeFile(join(folder, 'localhost.crt'), fresh.cert)
    await writeFile(join(folder, 'localhost.key'), fresh.key)
    await hup(READ)
    const after = await served(program)
    expect(after).not.to.equal(before)
    await alive()

    for (const [what, crt, key] of [
      ['no certificate', 'nonsense', fresh.key],
      ['a key of another', fresh.cert, await readFile(join(program.folder, 'old.key'), 'utf8')],
      ['half a file', fresh.cert.slice(0, 300), fresh.key],
    ] as const) {
      await writeFile(join(folder, 'localhost.crt'), crt)
      await writeFile(join(folder, 'localhost.key'), key)
      await hup(REFUSED)
      expect(await served(program), what).to.equal(after)
      await alive()
    }
    await writeFile(join(folder, 'localhost.crt'), fresh.cert)
    await writeFile(join(folder, 'localhost.key'), fresh.key)

    for (const [what, text] of [
      ['no YAML', '{ hosts: ['],
      ['an option that does not exist', JSON.stringify({ hosts: ['localhost'], nonsense: 1 })],
      [
        'an option of a module that is wrong',
        JSON.stringify({ hosts: ['localhost'], modules: { roster: { maxContacts: -1 } } }),
      ],
      ['nothing that can be read', undefined],
    ] as const) {
      const good = await readFile(program.file, 'utf8')
      if (text === undefined) await copyFile(program.file, `${program.file}.kept`)
      await (text === undefined
        ? import('node:fs/promises').then((fs) => fs.rm(program.file))
        : writeFile(program.file, text))
      await hup(REFUSED)
      await alive()
      expect(await served(program), what).to.equal(after)
      await writeFile(program.file, good)
    }
    await hup(READ)
    await alive()

    // an option that is read for each request
    await program.configure({ modules: { version: false } })
    await hup(READ)
    await alive()
    const [first] = old
    first?.send(`<iq type='get' id='v' to='localhost'><query xmlns='jabber:iq:version'/></iq>`)
    expect(await first?.until(/<iq[^>]*id=["']v["'][^]*?<\/iq>/)).to.include('service-unavailable')

    // a certificate in another place
    await writeFile(join(program.folder, 'own.crt'), await readFile(join(program.folder, 'old.crt')))
    await writeFile(join(program.folder, 'own.key'), await readFile(join(program.folder, 'old.key')))
    await program.configure({
      hosts: {
        localhost: { certificate: join(program.folder, 'own.crt'), key: join(program.folder, 'own.key') },
      },
    })
    await hup(READ)
    await alive()
    expect(await served(program), 'the certificate of the new path').to.equal(before)
    for (const wire of old) wire.drop()
  })

  it('twenty in a row while clients log in: all of them are served', async () => {
    await using program = await Program.make()
    await program.command(['user', 'add', 'romeo@localhost'], `${PASSWORD}\n`)
    await program.start()
    const logins = inParallel(names('r', 60), 6, async (name) => {
      const wire = await login(
        program,
        'romeo',
        name,
        name.endsWith('3') ? 'websocket' : name.endsWith('7') ? 'tls' : 'tcp',
      )
      await wire.ping()
      return wire
    })
    for (let i = 0; i < 20; i++) {
      await program.configure({ modules: { version: i % 2 === 0 } })
      program.signal('SIGHUP')
    }
    const wires = await logins
    // the last one wins
    const [first] = wires
    const asked = async (): Promise<string> => {
      first?.send(`<iq type='get' id='v' to='localhost'><query xmlns='jabber:iq:version'/></iq>`)
      return (await first?.until(/<iq[^>]*id=["']v["'][^]*?<\/iq>/)) ?? ''
    }
    for (let i = 0; i < 1000 && !(await asked()).includes('service-unavailable'); i++);
    expect(await asked()).to.include('service-unavailable')
    for (const wire of wires) await wire.ping('again')
    expect(program.lines.filter((line) => line.includes('"level":50'))).to.deep.equal([])
    expect(await program.stop()).to.include({ code: 0 })
    for (const wire of wires) wire.drop()
  })
})
