/**
 * Logins that are overtaken: the password is changed, or the account removed and its name given away, between what the login was proven
 * with and its end. SASL, SASL2, tasks, binding, resumption; with accounts that have generations and with those of a directory.
 */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import bind2 from '../../modules/bind2.ts'
import sasl from '../../modules/sasl/index.ts'
import sasl2 from '../../modules/sasl2.ts'
import sm from '../../modules/stream-management/index.ts'
import { defineModule, type Services } from '../../server/module.ts'
import { accountsStub } from '../helpers/accounts.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { bindingTls, LoginStream, outcome } from '../helpers/login.ts'
import { Scram } from '../helpers/scram.ts'
import { NS_BIND } from '../helpers/xml.ts'
import { openFaulty } from '../robustness/faulty-store.ts'

const NS = 'urn:xmpp:sasl:2'
const NS_SM = 'urn:xmpp:sm:3'
const PASSWORD = 'r0m30myr0m30'
const PLAIN = `\0juliet\0${PASSWORD}`
const tls = bindingTls()
const b64 = (text: string): string => Buffer.from(text).toString('base64')
const unb64 = (text: string | null | undefined): string => Buffer.from(text ?? '', 'base64').toString()
const authenticate = (mechanism: string, initial: string, inner = ''): string =>
  `<authenticate xmlns='${NS}' mechanism='${mechanism}'><initial-response>${b64(initial)}</initial-response>${inner}</authenticate>`
const BIND = `<iq type='set' id='b'><bind xmlns='${NS_BIND}'/></iq>`
const EXPIRED = 'failure:credentials-expired'

type Modules = Parameters<typeof testHost>[0]['modules']
type Task = Parameters<Services['sasl2']['addTask']>[0]

async function start(store?: TestHost['store'], ...more: Modules): Promise<TestHost> {
  const host = await testHost({
    modules: [accounts, sasl, bind, sasl2, bind2, sm, ...more],
    config: { accounts: { iterations: 4096 } },
    ...(store === undefined ? {} : { store }),
  })
  await host.service('auth').create('juliet', PASSWORD)
  return host
}

/** What may overtake a login. */
const EVENTS: Readonly<Record<string, (host: TestHost) => Promise<void>>> = {
  'the password is changed': (host) => host.service('auth').setPassword('juliet', 'another one'),
  'the account is removed': (host) => host.host.deleteAccount('juliet'),
  'the account is removed and its name given away': async (host) => {
    await host.host.deleteAccount('juliet')
    await host.service('auth').create('juliet', 'of somebody else')
  },
  'somebody with the same password gets the name': async (host) => {
    await host.host.deleteAccount('juliet')
    await host.service('auth').create('juliet', PASSWORD)
  },
}

/** A module with a task; `run` is told of each step. */
const tasks = (run: (step: string) => void, task: Partial<Task> = {}) =>
  defineModule({
    name: 'tasks',
    summary: 'task of the test',
    specs: [],
    requires: ['sasl2'],
    setup(ctx) {
      ctx.use('sasl2').addTask({
        name: 'CODE',
        wanted: () => true,
        start: () => {
          run('start')
          const next = (): { done: [] } => {
            run('next')
            return { done: [] }
          }
          return { data: [], next }
        },
        ...task,
      })
    },
  })

for (const [event, happens] of Object.entries(EVENTS))
  describe(`logins under way when ${event}`, () => {
    it('RFC 6120 §6.5.3: SCRAM whose keys were read before', async () => {
      await using host = await start()
      const login = await LoginStream.open(host, { tls })
      const scram = new Scram('SCRAM-SHA-256', 'juliet', PASSWORD, {}, undefined)
      const challenge = await login.auth('SCRAM-SHA-256', scram.first())
      await happens(host)
      expect(await login.respond(scram.final(challenge.slice('challenge '.length)))).to.equal(EXPIRED)
      expect(login.stream.session.is('authenticated')).to.equal(false)
      expect((await login.send(BIND)).join()).to.contain('not-authorized')
    })

    it('XEP-0388 §2.6.2: the same in SASL2, with everything that was asked for', async () => {
      await using host = await start()
      const login = await LoginStream.open(host, { tls })
      const scram = new Scram('SCRAM-SHA-256', 'juliet', PASSWORD, {}, undefined)
      const first = authenticate('SCRAM-SHA-256', scram.first(), `<bind xmlns='urn:xmpp:bind:0'/>`)
      const challenge = await login.ask(first)
      await happens(host)
      const final = b64(scram.final(unb64(challenge.getText())))
      expect(outcome(await login.send(`<response xmlns='${NS}'>${final}</response>`))).to.equal(EXPIRED)
      expect(host.host.of('juliet')).to.have.length(0)
    })

    it('PLAIN while the keys are derived', async () => {
      await using host = await start()
      const { generations } = host.service('auth')
      const { verify } = generations!
      const gate = Promise.withResolvers<void>()
      const slow = async (local: string, password: string): Promise<string | undefined> => {
        const generation = await verify(local, password)
        await gate.promise
        return generation
      }
      Object.assign(generations!, { verify: slow })
      const login = await LoginStream.open(host, { tls })
      const answer = login.auth('PLAIN', PLAIN)
      await host.settle()
      await happens(host)
      gate.resolve()
      expect(await answer).to.equal(EXPIRED)
    })

    it('XEP-0388 §2.6.3: SCRAM whose keys were read before leads to no task', async () => {
      await using host = await start(
        undefined,
        tasks(() => undefined),
      )
      const login = await LoginStream.open(host, { tls })
      const scram = new Scram('SCRAM-SHA-256', 'juliet', PASSWORD, {}, undefined)
      const challenge = await login.ask(authenticate('SCRAM-SHA-256', scram.first()))
      await happens(host)
      const final = b64(scram.final(unb64(challenge.getText())))
      expect(outcome(await login.send(`<response xmlns='${NS}'>${final}</response>`))).to.equal(EXPIRED)
    })

    it('XEP-0388 §2.6.3: a task that is not begun yet is not begun', async () => {
      const steps: string[] = []
      await using host = await start(
        undefined,
        tasks((step) => void steps.push(step)),
      )
      const login = await LoginStream.open(host, { tls })
      expect((await login.ask(authenticate('PLAIN', PLAIN))).getName()).to.equal('continue')
      await happens(host)
      expect(outcome(await login.send(`<next xmlns='${NS}' task='CODE'/>`))).to.equal(EXPIRED)
      expect(steps).to.deep.equal([])
    })

    it('XEP-0388 §2.6.3: one that is begun goes no further', async () => {
      const steps: string[] = []
      await using host = await start(
        undefined,
        tasks((step) => void steps.push(step)),
      )
      const login = await LoginStream.open(host, { tls })
      await login.ask(authenticate('PLAIN', PLAIN))
      await login.ask(`<next xmlns='${NS}' task='CODE'/>`)
      await happens(host)
      expect(outcome(await login.send(`<task-data xmlns='${NS}'/>`))).to.equal(EXPIRED)
      expect(steps).to.deep.equal(['start'])
    })

    it('XEP-0388 §2.6.1: no success after a task during which it happened', async () => {
      let host: TestHost | undefined
      const during = async (): Promise<{ done: [] }> => {
        if (host !== undefined) await happens(host)
        return { done: [] }
      }
      await using started = await start(
        undefined,
        tasks(() => undefined, { start: during }),
      )
      host = started
      const login = await LoginStream.open(host, { tls })
      await login.ask(authenticate('PLAIN', PLAIN))
      expect(outcome(await login.send(`<next xmlns='${NS}' task='CODE'/>`))).to.equal(EXPIRED)
    })

    for (const [when, waitMs] of [
      ['', 0],
      [', and the answer is not remembered any more', 10_000],
    ] as const) {
      it(`RFC 6120 §4.9.3.12: authenticated by SASL, not bound yet${when}`, async () => {
        await using host = await start()
        const login = await LoginStream.open(host, { tls })
        expect(await login.auth('PLAIN', PLAIN)).to.equal('success')
        await login.header()
        await happens(host)
        await host.clock.advance(waitMs)
        expect(outcome(await login.send(BIND))).to.equal('error:not-authorized')
        expect(host.host.of('juliet')).to.have.length(0)
      })

      it(`RFC 6120 §4.9.3.12: authenticated by SASL2, not bound yet${when}`, async () => {
        await using host = await start()
        const login = await LoginStream.open(host, { tls })
        await login.send(authenticate('PLAIN', PLAIN))
        await happens(host)
        await host.clock.advance(waitMs)
        expect(outcome(await login.send(BIND))).to.equal('error:not-authorized')
        expect(host.host.of('juliet')).to.have.length(0)
      })
    }
  })

describe('logins under way that want to go on with a session (XEP-0198 §5)', () => {
  /** The id of a session without stream. */
  const kept = async (host: TestHost, password: string): Promise<string> => {
    const login = await LoginStream.open(host, { tls })
    const enable = `<bind xmlns='urn:xmpp:bind:0'><enable xmlns='${NS_SM}' resume='true'/></bind>`
    const [success] = await login.send(authenticate('PLAIN', `\0juliet\0${password}`, enable))
    await login.stream.drop()
    const enabled = success?.getChild('bound', 'urn:xmpp:bind:0')?.getChild('enabled', NS_SM)
    return String(enabled?.attrs['id'])
  }
  const connected = (host: TestHost): boolean[] => host.host.of('juliet').map((session) => session.connected)

  it('not after the password was changed: who has the new one can', async () => {
    await using host = await start()
    const id = await kept(host, PASSWORD)
    const resume = `<resume xmlns='${NS_SM}' previd='${id}' h='0'/>`
    const login = await LoginStream.open(host, { tls })
    await login.send(authenticate('PLAIN', PLAIN))
    await host.service('auth').setPassword('juliet', 'another one')
    expect(outcome(await login.send(resume))).to.equal('error:not-authorized')
    expect(connected(host)).to.deep.equal([false])
    const owner = await LoginStream.open(host, { tls })
    const [success] = await owner.send(authenticate('PLAIN', '\0juliet\0another one', resume))
    expect(success?.getChild('resumed', NS_SM)).to.not.equal(undefined)
    expect(connected(host)).to.deep.equal([true])
  })

  it('not that of the next owner of the name', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    await login.send(authenticate('PLAIN', PLAIN))
    await host.host.deleteAccount('juliet')
    await host.service('auth').create('juliet', 'of somebody else')
    const id = await kept(host, 'of somebody else')
    const answer = await login.send(`<resume xmlns='${NS_SM}' previd='${id}' h='0'/>`)
    expect(outcome(answer)).to.equal('error:not-authorized')
    expect(connected(host)).to.deep.equal([false])
  })
})

describe('logins that nothing overtakes', () => {
  it('the account is read once, from the first message to the bound session', async () => {
    const store = await openFaulty()
    await using host = await start(store)
    await host.clock.advance(60_000) // nothing is remembered
    const reads = async (login: () => Promise<unknown>): Promise<number> => {
      Object.assign(store, {
        fault: { until: Promise.resolve(), done: true },
        only: /^accounts\.get$/,
        met: 0,
      })
      await login()
      store.fault = 'none'
      return store.met
    }
    const both = 2 // that of the account, and that of a name which is none (RFC 6120 §6.5.10)
    const bound = async (login: LoginStream): Promise<void> => {
      await login.header()
      expect((await login.ask(BIND)).attrs['type']).to.equal('result')
    }
    expect(
      await reads(async () => {
        const login = await LoginStream.open(host, { tls })
        expect(await login.auth('PLAIN', PLAIN)).to.equal('success')
        await bound(login)
      }),
    ).to.equal(both)
    expect(
      await reads(async () => {
        const login = await LoginStream.open(host, { tls })
        expect(await login.scram('SCRAM-SHA-256', 'juliet', PASSWORD)).to.equal('success')
        await bound(login)
      }),
    ).to.equal(both)
  })

  it('what was proven is not kept with the bound session', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const [success] = await login.send(authenticate('PLAIN', PLAIN, `<bind xmlns='urn:xmpp:bind:0'/>`))
    expect(success?.getName()).to.equal('success')
    expect(login.stream.session.flag('generation')).to.equal(undefined)
  })

  it('after a refusal the new password is good on the same stream', async () => {
    await using host = await start()
    const login = await LoginStream.open(host, { tls })
    const scram = new Scram('SCRAM-SHA-256', 'juliet', PASSWORD, {}, undefined)
    const challenge = await login.auth('SCRAM-SHA-256', scram.first())
    await host.service('auth').setPassword('juliet', 'another one')
    expect(await login.respond(scram.final(challenge.slice('challenge '.length)))).to.equal(EXPIRED)
    expect(await login.scram('SCRAM-SHA-256', 'juliet', 'another one')).to.equal('success')
  })

  it('RFC 6120 §6.5.11: a store that does not answer when it is asked again is a temporary failure', async () => {
    const store = await openFaulty()
    const lines: string[] = []
    await using host = await testHost({
      modules: [accounts, sasl, sasl2, tasks(() => undefined)],
      store,
      onLog: (level, message) => void lines.push(`${level} ${message}`),
    })
    await host.service('auth').create('juliet', PASSWORD)
    const login = await LoginStream.open(host, { tls })
    await login.ask(authenticate('PLAIN', PLAIN))
    await host.clock.advance(10_000)
    Object.assign(store, { fault: 'reject', only: /^accounts\.get$/ })
    expect(outcome(await login.send(`<next xmlns='${NS}' task='CODE'/>`))).to.equal(
      'failure:temporary-auth-failure',
    )
    expect(lines).to.deep.equal(['error account cannot be looked at'])
  })

  it('accounts of a directory, which has no generations: only whether they exist is asked', async () => {
    const directory = accountsStub(['juliet'], PASSWORD)
    await using host = await testHost({ modules: [directory, sasl, bind, sasl2] })
    const login = await LoginStream.open(host, { tls })
    expect(await login.auth('PLAIN', PLAIN)).to.equal('success')
    await login.header()
    expect((await login.ask(BIND)).attrs['type']).to.equal('result')
    const second = await LoginStream.open(host, { tls })
    await second.send(authenticate('PLAIN', PLAIN))
    await host.service('auth').remove('juliet')
    expect(outcome(await second.send(BIND))).to.equal('error:not-authorized')
  })
})
