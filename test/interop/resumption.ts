/**
 * XEP-0198 §5 as other people's clients do it: the connection is cut by a relay while messages are on their way, the client comes back
 * and resumes. What a client sends and gets must be there once each, in order, whatever was lost. Also with a server that is restarted
 * or killed in between.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type CommandFolder, commandFolder, type RunningCommand } from '../helpers/command.ts'
import { startServer } from '../helpers/server.ts'
import { startTcpProxy, type TcpProxy } from '../helpers/tcp-proxy.ts'
import type { Driven, Told } from './driven.ts'
import { PASSWORD, Peer } from './peer.ts'

/** What a client is started with. */
export interface Login {
  readonly jid: string
  readonly password: string
  /** PEM file of the certificate to trust. */
  readonly ca: string
  readonly domain: string
}
/** One client library. */
export interface Library {
  start(login: Login): Driven | Promise<Driven>
  /** Connects with direct TLS, not STARTTLS. */
  readonly directTls?: boolean
  /** It forgets what it has sent and knows nothing of, so that what was lost on its way is lost: why, and in which version. */
  readonly forgets?: string
  /** It tells `sm_failed` with the count of the server. */
  readonly tellsFailure?: boolean
  /** After a failed resumption it sends again what was not confirmed. */
  readonly resends?: boolean
}

/** Resolves to this machine, for clients that can be told a name only. */
const DOMAIN = 'localhost'
const LIMIT_MS = 120_000

/** `c3` to `c5`. */
const texts = (letter: string, from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => `${letter}${from + i}`)
const heard = (told: readonly Told[]): string[] =>
  told.filter(({ event }) => event === 'message').map(({ text }) => text ?? '')

/** A server, a relay before it, the client and its peer. */
interface Stage extends AsyncDisposable {
  readonly proxy: TcpProxy
  readonly client: Driven
  readonly peer: Peer
  readonly peerJid: string
}

const portOf = (library: Library, ports: { readonly c2s: number; readonly c2sTls: number }): number =>
  library.directTls === true ? ports.c2sTls : ports.c2s

let runs = 0

async function stage(library: Library, modules: Readonly<Record<string, boolean>> = {}): Promise<Stage> {
  await using undo = new AsyncDisposableStack()
  const server = undo.use(await startServer({ modules }))
  const proxy = undo.use(await startTcpProxy(portOf(library, server.ports)))
  const [one, other] = [`one${(runs += 1)}`, `other${runs}`]
  await server.addUser(one, PASSWORD)
  await server.addUser(other, PASSWORD)
  const jid = `${one}@${server.domain}`
  const client = undo.use(
    await library.start({ jid, password: PASSWORD, ca: server.ca, domain: server.domain }),
  )
  const peer = await Peer.login(server, other, jid)
  undo.defer(() => peer.client.drop())
  client.connect(proxy.port)
  await client.next('session_start')
  await client.sync() // its presence has arrived
  const kept = undo.move()
  return {
    proxy,
    client,
    peer,
    peerJid: `${other}@${server.domain}`,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** Holds one direction: resolves when something came that is held. What is held is lost when the connection is cut. */
function hold(
  proxy: TcpProxy,
  way: 'onRequest' | 'onAnswer',
): { readonly some: Promise<void>; lift(): void } {
  const some = Promise.withResolvers<void>()
  const lifted = Promise.withResolvers<boolean>()
  proxy[way] = () => {
    some.resolve()
    return lifted.promise
  }
  return {
    some: some.promise,
    lift() {
      proxy[way] = undefined
      lifted.resolve(false)
    },
  }
}

async function resume({ proxy, client }: Stage): Promise<void> {
  await client.next('disconnected')
  client.connect(proxy.port)
  await client.next('session_resumed')
}

/** Everything was said once, in order, in both directions. `missing`: what the client has forgotten to send. */
async function finish({ client, peer, peerJid }: Stage, missing: readonly string[] = []): Promise<void> {
  client.send(['c-last'], peerJid)
  peer.send(['p-last'])
  await peer.waitFor('c-last')
  await client.until((told) => heard(told).includes('p-last'), 'the last message')
  await client.sync() // and nothing behind it
  const said = Array.from({ length: 30 }, (_, i) => i + 1)
  const inOrder = (letter: string, got: readonly string[]): string[] => [
    ...said.map((i) => `${letter}${i}`).filter((text) => got.includes(text)),
    `${letter}-last`,
  ]
  expect(peer.got).to.deep.equal(inOrder('c', peer.got))
  expect(heard(client.told)).to.deep.equal(inOrder('p', heard(client.told)))
  for (const text of missing) expect(peer.got).not.to.include(text)
}

/** The tests of one library. */
export function resumptionTests(library: Library): void {
  it('both directions are lost on their way: both are sent again', async function () {
    this.timeout(LIMIT_MS)
    await using s = await stage(library)
    s.client.send(texts('c', 1, 3), s.peerJid)
    s.peer.send(texts('p', 1, 3))
    await s.peer.waitFor('c3')
    await s.client.until((told) => heard(told).includes('p3'), 'p3')
    const held = [hold(s.proxy, 'onRequest'), hold(s.proxy, 'onAnswer')]
    s.client.send(texts('c', 4, 8), s.peerJid)
    s.peer.send(texts('p', 4, 8))
    await Promise.all(held.map((one) => one.some))
    await s.peer.client.ping()
    s.proxy.cut()
    for (const one of held) one.lift()
    await resume(s)
    await finish(s, library.forgets === undefined ? [] : texts('c', 4, 8))
    if (library.forgets === undefined) expect(s.peer.got).to.include.members(texts('c', 1, 8))
    expect(heard(s.client.told)).to.include.members(texts('p', 1, 8))
  })

  it('the server has handled what the client knows nothing of: it is not handled again', async function () {
    this.timeout(LIMIT_MS)
    await using s = await stage(library)
    const held = hold(s.proxy, 'onAnswer')
    s.client.send(texts('c', 1, 5), s.peerJid)
    await s.peer.waitFor('c5')
    s.peer.send(texts('p', 1, 5))
    await s.peer.client.ping()
    await held.some
    s.proxy.cut()
    held.lift()
    await resume(s)
    await finish(s)
    expect(s.peer.got).to.deep.equal([...texts('c', 1, 5), 'c-last'])
    expect(heard(s.client.told)).to.deep.equal([...texts('p', 1, 5), 'p-last'])
  })

  it('the client has what the server knows nothing of: it is not sent again', async function () {
    this.timeout(LIMIT_MS)
    await using s = await stage(library)
    const held = hold(s.proxy, 'onRequest')
    s.peer.send(texts('p', 1, 5))
    await s.client.until((told) => heard(told).includes('p5'), 'p5')
    s.client.send(texts('c', 1, 5), s.peerJid)
    await held.some
    s.proxy.cut()
    held.lift()
    await resume(s)
    await finish(s)
    expect(heard(s.client.told)).to.deep.equal([...texts('p', 1, 5), 'p-last'])
    expect(s.peer.got).to.deep.equal([...(library.forgets === undefined ? texts('c', 1, 5) : []), 'c-last'])
  })

  it('what comes while the client is away waits for it', async function () {
    this.timeout(LIMIT_MS)
    await using s = await stage(library)
    for (const [from, to] of [
      [1, 5],
      [6, 10],
    ] as const) {
      s.proxy.cut()
      await s.client.next('disconnected')
      s.peer.send(texts('p', from, to))
      await s.peer.client.ping()
      s.client.connect(s.proxy.port)
      await s.client.next('session_resumed')
    }
    await finish(s)
    expect(heard(s.client.told)).to.deep.equal([...texts('p', 1, 10), 'p-last'])
  })

  it('cut again at each step of coming back', async function () {
    this.timeout(LIMIT_MS)
    // COMPAT(slixmpp 1.17 on Python 3.11: now and then its TLS layer fails while it closes, and it waits for ever)
    this.retries(2)
    await using s = await stage(library)
    s.proxy.cut()
    await s.client.next('disconnected')
    let cuts = 0
    for (let step = 1; ; step++) {
      s.peer.send([`p${step}`])
      await s.peer.client.ping()
      let answers = 0
      s.proxy.onAnswer = () => ++answers < step
      s.client.connect(s.proxy.port)
      // what is not cut within a few answers is through
      const { event } = await s.client.next('disconnected', 'session_resumed')
      if (event === 'session_resumed') break
      cuts = step
      expect(step, 'never through').to.be.lessThan(30)
    }
    s.proxy.onAnswer = undefined
    expect(cuts).to.be.greaterThan(3)
    // the connection may have been cut behind the answer that made it
    s.proxy.cut()
    await s.client.next('disconnected')
    s.client.connect(s.proxy.port)
    await s.client.next('session_resumed')
    await finish(s)
    expect(heard(s.client.told)).to.include.members(texts('p', 1, cuts + 1))
  })

  it('a canary: where the server does not manage streams, nothing is resumed', async function () {
    this.timeout(LIMIT_MS)
    await using s = await stage(library, { 'stream-management': false })
    const held = hold(s.proxy, 'onAnswer')
    s.peer.send(['p1'])
    await held.some
    s.proxy.cut()
    held.lift()
    await s.client.next('disconnected')
    s.client.connect(s.proxy.port)
    expect((await s.client.next('session_start', 'session_resumed')).event).to.equal('session_start')
  })

  it('SIGTERM: a new server knows what was handled, and has what the client did not get', async function () {
    this.timeout(LIMIT_MS)
    await using world = await restartable(library)
    const { client, jid, peerJid, proxy } = world
    const peer = await world.peer()
    client.connect(proxy.port)
    await client.next('session_start')
    await client.sync()
    const held = hold(proxy, 'onAnswer')
    client.send(texts('c', 1, 5), peerJid)
    await peer.waitFor('c5')
    peer.send(texts('p', 1, 5))
    await peer.client.ping()
    await held.some
    world.running.signal('SIGTERM')
    expect((await world.running.done).code).to.equal(0)
    proxy.cut()
    held.lift()
    await client.next('disconnected')
    await world.restart()
    const again = await world.peer()
    client.connect(proxy.port)
    // XEP-0198 §5: an earlier session that is over: its count is told
    if (library.tellsFailure === true)
      expect(Number((await client.next('sm_failed')).h)).to.be.at.least(texts('c', 1, 5).length)
    expect((await client.next('session_start')).jid).to.match(new RegExp(`^${jid}/`))
    again.send(['p-last'])
    client.send(['c-last'], peerJid)
    await again.waitFor('c-last')
    await client.until((told) => heard(told).includes('p-last'), 'the last message')
    await client.sync()
    expect(heard(client.told)).to.deep.equal([...texts('p', 1, 5), 'p-last'])
    expect(again.got).to.deep.equal(['c-last'])
    expect(await again.archive()).to.deep.equal([
      ...texts('c', 1, 5),
      ...texts('p', 1, 5),
      'p-last',
      'c-last',
    ])
  })

  it('kill -9: what was acknowledged to the client is in the archive, once', async function () {
    this.timeout(LIMIT_MS)
    await using world = await restartable(library)
    const { client, peerJid, proxy } = world
    const peer = await world.peer()
    client.connect(proxy.port)
    await client.next('session_start')
    await client.sync()
    const acked = (): string[] =>
      client.told.filter(({ event }) => event === 'acked').map(({ text }) => text ?? '')
    client.send(texts('c', 1, 6), peerJid)
    await client.until(() => acked().length >= 3, 'acknowledgements')
    client.send(texts('c', 7, 30), peerJid)
    await client.until(() => acked().length >= 9, 'more acknowledgements')
    world.running.signal('SIGKILL')
    await world.running.done
    const known = acked()
    await client.next('disconnected')
    peer.client.drop()
    await world.restart()
    const again = await world.peer()
    client.connect(proxy.port)
    await client.next('session_start')
    client.send(['c-last'], peerJid)
    await again.waitFor('c-last')
    const archive = await again.archive()
    expect(archive).to.include.members(known)
    expect(new Set(archive).size, `twice: ${archive.join(' ')}`).to.equal(archive.length)
    if (library.resends === true) expect(archive).to.have.members([...texts('c', 1, 30), 'c-last'])
  })
}

interface Restartable extends AsyncDisposable {
  readonly client: Driven
  readonly jid: string
  readonly peerJid: string
  readonly running: RunningCommand
  /** Logs the peer in at the server that runs now. */
  peer(): Promise<Peer>
  /** A relay to the server that runs now. */
  readonly proxy: TcpProxy
  restart(): Promise<void>
}

/** A server as its own process on an embedded store, which can be ended and started again. */
async function restartable(library: Library): Promise<Restartable> {
  await using undo = new AsyncDisposableStack()
  const folder: CommandFolder = undo.use(await commandFolder())
  const free = '[{ port: 0 }]'
  await writeFile(
    join(folder.path, 'hermod.yaml'),
    `hosts: [${DOMAIN}]
listen: { addresses: [127.0.0.1], client: ${free}, clientTls: ${free}, http: ${free}, https: ${free} }
tls: { folder: certs }
storage: { driver: lmdb, path: data }
modules: { accounts: { iterations: 4096 } }
`,
  )
  for (const local of ['one', 'other']) {
    const added = await folder.run(['user', 'add', `${local}@${DOMAIN}`], { input: `${PASSWORD}\n` })
    expect(added.code, added.stderr).to.equal(0)
  }
  let running = await folder.start()
  const ca = join(folder.path, `certs/${DOMAIN}.crt`)
  const jid = `one@${DOMAIN}`
  const client = undo.use(await library.start({ jid, password: PASSWORD, ca, domain: DOMAIN }))
  const proxy = undo.use(await startTcpProxy(portOf(library, running.ports)))
  const kept = undo.move()
  return {
    client,
    jid,
    peerJid: `other@${DOMAIN}`,
    get running() {
      return running
    },
    async peer() {
      const peer = await Peer.login({ domain: DOMAIN, ports: running.ports, ca }, 'other', jid)
      kept.defer(() => peer.client.drop())
      return peer
    },
    proxy,
    async restart() {
      running = await folder.start()
      proxy.target = portOf(library, running.ports)
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
