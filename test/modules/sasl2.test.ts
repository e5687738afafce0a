/** XEP-0388: the same logins by the other protocol, tasks, inline features, and what ends the stream. */
import { expect } from 'chai'
import type { Element as LtxElement } from 'ltx'
import { c, defineModule, type Services } from '../../server/module.ts'
import { el } from '../../server/xmpp/element.ts'
import { SaslError } from '../../server/xmpp/errors.ts'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingData, bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { Scram } from '../helpers/scram.ts'

const NS = 'urn:xmpp:sasl:2'
const AGENT = 'd4565fa7-4d72-4749-b3d3-740edbf87770'
const tls = bindingTls()
const b64 = (text: string): string => Buffer.from(text).toString('base64')
const unb64 = (text: string | null | undefined): string => Buffer.from(text ?? '', 'base64').toString()

type Task = Parameters<Services['sasl2']['addTask']>[0]

/** A module with tasks, as one for second factors would be. */
const tasksModule = (tasks: readonly Task[]) =>
  defineModule({
    name: 'tasks',
    summary: 'tasks of the test',
    specs: [],
    requires: ['sasl2'],
    config: c.object({}),
    setup(ctx) {
      for (const task of tasks) ctx.use('sasl2').addTask(task)
    },
  })

/** A module with an inline feature that greets the account. */
const greeting = defineModule({
  name: 'greeting',
  summary: 'inline feature of the test',
  specs: [],
  setup(ctx) {
    ctx.streamFeature({
      ns: 'urn:x:greet',
      streams: ['c2s'],
      needs: ['authenticated'],
      forbids: [],
      inline: 'sasl2',
      advertise: () => el('greet', 'urn:x:greet'),
      handle: (s) => ({ reply: el('hello', 'urn:x:greet', {}, s.jid?.toString()) }),
    })
  },
})

async function start(...more: Parameters<typeof testHost>[0]['modules']): Promise<TestHost> {
  const options = { accounts: { iterations: 4096 } }
  const host = await testHost({ modules: [accounts, sasl, bind, sasl2, ...more], config: options })
  await host.service('auth').create('juliet', 'r0m30myr0m30')
  return host
}

const authenticate = (mechanism: string, initial: string | undefined, inner = ''): string =>
  `<authenticate xmlns='${NS}' mechanism='${mechanism}'>${
    initial === undefined ? '' : `<initial-response>${b64(initial)}</initial-response>`
  }${inner}</authenticate>`
const PLAIN = '\0juliet\0r0m30myr0m30'
const response = (text: string): string => `<response xmlns='${NS}'>${b64(text)}</response>`
const childNames = (element: LtxElement | undefined): string[] =>
  element?.getChildElements().map((child) => child.getName()) ?? []

describe('sasl2: offers (§2.1)', () => {
  it('only after TLS (§3), with the mechanisms of sasl and the inline features', async () => {
    await using host = await start(greeting)
    expect((await LoginStream.open(host)).offers).to.deep.equal([])
    const login = await LoginStream.open(host, { tls })
    expect(login.mechanisms('authentication')).to.deep.equal(login.mechanisms())
    const offer = login.features?.getChild('authentication', NS)
    expect(offer?.getChild('inline', NS)?.getChild('greet', 'urn:x:greet')).to.not.equal(undefined)
  })

  it('§3: not without TLS, even where classic login is allowed', async () => {
    const config = { accounts: { iterations: 4096 }, sasl: { requireTls: false } }
    await using host = await testHost({ modules: [accounts, sasl, sasl2], config })
    const login = await LoginStream.open(host)
    expect(login.offers).to.deep.equal(['mechanisms'])
    expect(outcome(await login.send(authenticate('SCRAM-SHA-1', 'n,,n=juliet,r=abc')))).to.equal(
      'failure:encryption-required',
    )
  })

  it('without inline features there is no <inline/>; after unload nothing', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(login.features?.getChild('authentication', NS)?.getChild('inline', NS)).to.equal(undefined)
    await host.unload('sasl2')
    expect((await LoginStream.open(host, { tls })).offers).to.not.include('authentication')
  })
})

describe('sasl2: exchange', () => {
  it('§2.6.1: SCRAM with channel binding; success, then features without a restart', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls, from: 'juliet@example.org' })
    const overrides = { gs2: 'p=tls-exporter,,' }
    const scram = new Scram(
      'SCRAM-SHA-1-PLUS',
      'juliet',
      'r0m30myr0m30',
      overrides,
      bindingData('tls-exporter'),
    )
    const challenge = await login.ask(authenticate('SCRAM-SHA-1-PLUS', scram.first()))
    expect(challenge.is('challenge', NS)).to.equal(true)
    const [success, features] = await login.send(response(scram.final(unb64(challenge.getText()))))
    expect(success?.is('success', NS)).to.equal(true)
    expect(childNames(success)).to.deep.equal(['additional-data', 'authorization-identifier'])
    expect(success?.getChildText('authorization-identifier')).to.equal('juliet@example.org')
    expect(scram.verify(unb64(success?.getChildText('additional-data')))).to.equal(true)
    expect(childNames(features)).to.deep.equal(['bind'])
  })

  it('XEP-0474 §6.1: the hash covers the offers of this protocol', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const challenge = unb64((await login.ask(authenticate('SCRAM-SHA-1', 'n,,n=juliet,r=abc'))).getText())
    expect(challenge).to.match(/,h=[A-Za-z0-9+/]{27}=,t=0304$/)
  })

  it('§2.2: no initial response, then an empty challenge', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const challenge = await login.ask(authenticate('PLAIN', undefined))
    expect(challenge.is('challenge', NS) && challenge.getText() === '').to.equal(true)
    const [success] = await login.send(response(PLAIN))
    expect(childNames(success)).to.deep.equal(['authorization-identifier'])
  })

  it('§2.2: an empty initial response is one', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(outcome(await login.send(authenticate('PLAIN', '')))).to.equal('failure:malformed-request')
  })

  it('§2.6.2: failure in the right namespaces, and another try', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const failure = await login.ask(authenticate('PLAIN', '\0juliet\0wrong'))
    expect(failure.is('failure', NS)).to.equal(true)
    expect(failure.getChild('not-authorized', 'urn:ietf:params:xml:ns:xmpp-sasl')).to.not.equal(undefined)
    expect(login.stream.session.jid).to.equal(undefined)
    expect((await login.send(authenticate('PLAIN', PLAIN)))[0]?.is('success', NS)).to.equal(true)
  })

  it('§2.3: a mechanism that was not announced', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    expect(outcome(await login.send(authenticate('CRAM-MD5', 'x')))).to.equal('failure:invalid-mechanism')
    expect(outcome(await login.send(`<authenticate xmlns='${NS}'/>`))).to.equal('failure:invalid-mechanism')
  })

  it('§2.3, §4.4: the stream header and the authorization identity must agree', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls, from: 'romeo@example.org' })
    const end = await login.send(authenticate('PLAIN', `juliet@example.org${PLAIN}`))
    expect(outcome(end)).to.equal('failure:invalid-authzid error:invalid-from')
  })

  it('§4.5: <abort/>, with or without a reason, during an exchange and outside', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const abort = `<abort xmlns='${NS}'><text>changed my mind</text></abort>`
    expect(outcome(await login.send(abort))).to.equal('failure:aborted')
    await login.send(authenticate('SCRAM-SHA-1', 'n,,n=juliet,r=abc'))
    expect(outcome(await login.send(abort))).to.equal('failure:aborted')
    expect(outcome(await login.send(response('c=biws,r=abc,p=AAAA')))).to.equal('failure:malformed-request')
  })

  it('RFC 6120 §6.4.5: retries are limited here too', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    for (let i = 0; i < 3; i++)
      expect(outcome(await login.send(authenticate('PLAIN', '\0juliet\0wrong')))).to.equal(
        'failure:not-authorized',
      )
    expect(outcome(await login.send(authenticate('PLAIN', '\0juliet\0wrong')))).to.equal(
      'failure:not-authorized error:policy-violation',
    )
  })

  it('§2.2: base64 without white space; one initial response; nothing inside', async () => {
    await using host = await start()
    const inner = (xml: string) => `<authenticate xmlns='${NS}' mechanism='PLAIN'>${xml}</authenticate>`
    for (const [xml, condition] of [
      [inner(`<initial-response>\n${b64(PLAIN)}\n</initial-response>`), 'incorrect-encoding'],
      [inner('<initial-response>AA==</initial-response><initial-response/>'), 'malformed-request'],
      [inner('<initial-response><x/></initial-response>'), 'malformed-request'],
      [
        inner(`<initial-response>${b64(PLAIN)}</initial-response><user-agent id='phone'/>`),
        'malformed-request',
      ],
    ] as const) {
      const login = await LoginStream.open(host, { tls })
      expect(outcome(await login.send(xml)), xml).to.equal(`failure:${condition}`)
    }
  })

  it('§2.4: anything else during an exchange ends the stream', async () => {
    await using host = await start()
    for (const xml of [
      authenticate('PLAIN', PLAIN),
      `<next xmlns='${NS}' task='X'/>`,
      `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>${b64(PLAIN)}</auth>`,
      `<iq type='get' id='a'><query xmlns='jabber:iq:register'/></iq>`,
    ]) {
      const login = await LoginStream.open(host, { tls })
      await login.send(authenticate('SCRAM-SHA-1', 'n,,n=juliet,r=abc'))
      expect(outcome(await login.send(xml)), xml).to.equal('error:policy-violation')
    }
  })

  it('§4.8: a second login ends the stream', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    await login.send(authenticate('PLAIN', PLAIN))
    expect(outcome(await login.send(authenticate('PLAIN', PLAIN)))).to.match(/^error:/)
  })

  it('§2.3: what the client says of itself is known to modules', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const agent = `<user-agent id='${AGENT.toUpperCase()}'><software>Awesome</software><device>Phone</device></user-agent>`
    await login.send(authenticate('PLAIN', PLAIN, agent))
    expect(host.service('sasl2').userAgent(login.stream.session)).to.deep.equal({
      id: AGENT,
      software: 'Awesome',
      device: 'Phone',
    })
  })
})

describe('sasl2: inline features', () => {
  const greet = `<greet xmlns='urn:x:greet'/>`

  it('§2.6.1: run after the login, their results are in the success', async () => {
    await using host = await start(greeting)
    const login = await LoginStream.open(host, { tls })
    const [success] = await login.send(
      authenticate('PLAIN', PLAIN, `${greet}<unknown xmlns='urn:x:unknown'/>`),
    )
    expect(success?.getChildText('hello', 'urn:x:greet')).to.equal('juliet@example.org')
    expect(childNames(success)).to.deep.equal(['authorization-identifier', 'hello'])
  })

  it('§2.6.2: not run after a failure', async () => {
    await using host = await start(greeting)
    const login = await LoginStream.open(host, { tls })
    const failure = await login.ask(authenticate('PLAIN', '\0juliet\0wrong', greet))
    expect(childNames(failure)).to.deep.equal(['not-authorized'])
  })
})

describe('sasl2: tasks (§2.6.3)', () => {
  const code = (name: string, right: string, done: readonly string[] = []): Task => ({
    name,
    wanted: (login) => !done.some((other) => login.done.includes(other)),
    advertise: () => [el('upgrade', 'urn:x:tasks', {}, name)],
    start: () => ({
      data: [el('question', 'urn:x:tasks')],
      next: (data) => {
        if (data.getChildText('answer', 'urn:x:tasks') !== right) throw new SaslError('not-authorized')
        return { done: [el('result', 'urn:x:tasks', {}, name)] }
      },
    }),
  })
  const next = (task: string): string => `<next xmlns='${NS}' task='${task}'/>`
  const data = (answer: string): string =>
    `<task-data xmlns='${NS}'><answer xmlns='urn:x:tasks'>${answer}</answer></task-data>`
  const tasksOf = (element: LtxElement): string[] =>
    element
      .getChild('tasks', NS)
      ?.getChildren('task')
      .map((task) => task.getText()) ?? []

  it('continue, next, task-data, success; the inline features wait until then', async () => {
    await using host = await start(greeting, tasksModule([code('TOTP', '42')]))
    const login = await LoginStream.open(host, { tls })
    const offer = login.features?.getChild('authentication', NS)
    expect(offer?.getChildText('upgrade', 'urn:x:tasks')).to.equal('TOTP')
    const scram = new Scram('SCRAM-SHA-1', 'juliet', 'r0m30myr0m30')
    const challenge = await login.ask(
      authenticate('SCRAM-SHA-1', scram.first(), `<greet xmlns='urn:x:greet'/>`),
    )
    const more = await login.ask(response(scram.final(unb64(challenge.getText()))))
    expect(more.is('continue', NS)).to.equal(true)
    expect(childNames(more)).to.deep.equal(['additional-data', 'tasks'])
    expect(scram.verify(unb64(more.getChildText('additional-data')))).to.equal(true)
    expect(tasksOf(more)).to.deep.equal(['TOTP'])
    expect(login.stream.session.is('authenticated')).to.equal(false)
    const question = await login.ask(next('TOTP'))
    expect(question.getChild('question', 'urn:x:tasks')).to.not.equal(undefined)
    const [success] = await login.send(data('42'))
    expect(success?.is('success', NS)).to.equal(true)
    expect(childNames(success)).to.deep.equal(['result', 'authorization-identifier', 'hello'])
  })

  it('several: one of two can do, both can be needed', async () => {
    await using either = await start(
      tasksModule([code('TOTP', '42', ['HOTP']), code('HOTP', '43', ['TOTP'])]),
    )
    const one = await LoginStream.open(either, { tls })
    expect(tasksOf(await one.ask(authenticate('PLAIN', PLAIN)))).to.deep.equal(['TOTP', 'HOTP'])
    await one.ask(next('HOTP'))
    expect((await one.send(data('43')))[0]?.is('success', NS)).to.equal(true)

    await using both = await start(tasksModule([code('TOTP', '42'), code('NEW-PASSWORD', '43')]))
    const two = await LoginStream.open(both, { tls })
    await two.ask(authenticate('PLAIN', PLAIN))
    await two.ask(next('TOTP'))
    const more = await two.ask(data('42'))
    expect(tasksOf(more)).to.deep.equal(['NEW-PASSWORD'])
    expect(childNames(more)).to.deep.equal(['result', 'tasks'])
    await two.ask(next('NEW-PASSWORD'))
    expect((await two.send(data('43')))[0]?.is('success', NS)).to.equal(true)
  })

  it('a failed task fails the login, and counts like a wrong password', async () => {
    await using host = await start(tasksModule([code('TOTP', '42')]))
    const told: string[] = []
    host.host.hooks.chain('auth:result').add({
      module: 'test',
      place: { phase: 'observe' },
      handle: (e) => void told.push(`${e.local} ${e.error?.condition ?? 'in'} ${e.judged}`),
    })
    const login = await LoginStream.open(host, { tls })
    await login.ask(authenticate('PLAIN', PLAIN))
    await login.ask(next('TOTP'))
    expect(outcome(await login.send(data('41')))).to.equal('failure:not-authorized')
    expect(told).to.deep.equal(['juliet not-authorized true'])
    expect(outcome(await login.send(data('42')))).to.equal('error:policy-violation')
    expect(login.stream.session.is('authenticated')).to.equal(false)
  })

  it('a task that was not offered; aborting; anything else instead', async () => {
    await using host = await start(tasksModule([code('TOTP', '42')]))
    for (const [xml, result] of [
      [next('HOTP'), 'failure:malformed-request'],
      [`<abort xmlns='${NS}'/>`, 'failure:aborted'],
      [data('42'), 'error:policy-violation'],
      [response(PLAIN), 'error:policy-violation'],
      [authenticate('PLAIN', PLAIN), 'error:policy-violation'],
      [
        `<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>`,
        'error:policy-violation',
      ],
    ] as const) {
      const login = await LoginStream.open(host, { tls })
      await login.ask(authenticate('PLAIN', PLAIN))
      expect(outcome(await login.send(xml)), xml).to.equal(result)
      expect(login.stream.session.is('authenticated')).to.equal(false)
    }
  })
})
