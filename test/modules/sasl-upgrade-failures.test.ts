/** XEP-0480: upgrades that fail, are late, or come twice: the account has its old keys or all of the new ones, and logins go on. */
import { expect } from 'chai'
import accounts from '../../modules/accounts/index.ts'
import bind from '../../modules/bind.ts'
import sasl from '../../modules/sasl/index.ts'
import saslUpgrade from '../../modules/sasl-upgrade.ts'
import sasl2 from '../../modules/sasl2.ts'
import { defineModule, type Services } from '../../server/module.ts'
import { openMemory } from '../../server/storage/memory.ts'
import { testHost } from '../helpers/host.ts'
import { outcome } from '../helpers/login.ts'
import {
  NS,
  NS_SCRAM,
  PASSWORD,
  b64,
  hashesOf,
  ask,
  next,
  taskData,
  hashed,
  hostWith,
  start,
  salted,
  scramLogin,
  begun,
} from '../helpers/upgrade.ts'

describe('sasl-upgrade: what goes wrong', () => {
  it('what is no hash fails the login, which can be tried again without it; nothing is stored', async () => {
    await using host = await start()
    const good = b64(Buffer.alloc(32, 7))
    for (const [answer, condition] of [
      [hashed('not base64!'), 'incorrect-encoding'],
      [hashed(`${good.slice(0, -1)}`), 'incorrect-encoding'],
      [hashed(''), 'malformed-request'],
      [hashed(b64(Buffer.alloc(31))), 'malformed-request'],
      [hashed(b64(Buffer.alloc(64))), 'malformed-request'],
      [taskData(''), 'malformed-request'],
      [taskData(`<hash xmlns='urn:x:other'>${good}</hash>`), 'malformed-request'],
      [taskData(`<hash xmlns='${NS_SCRAM}'><x/></hash>`), 'malformed-request'],
      [
        taskData(`<hash xmlns='${NS_SCRAM}'>${good}</hash><hash xmlns='${NS_SCRAM}'>${good}</hash>`),
        'malformed-request',
      ],
    ] as const) {
      const { login } = await begun(host)
      expect(outcome(await login.send(answer)), answer).to.equal(`failure:${condition}`)
      expect(login.stream.session.is('authenticated')).to.equal(false)
      const again = await login.send(
        `<authenticate xmlns='${NS}' mechanism='PLAIN'><initial-response>${b64('\0romeo\0x')}</initial-response></authenticate>`,
      )
      expect(outcome(again), 'the stream goes on').to.equal('failure:not-authorized')
      await host.clock.advance(600_000)
    }
    expect(await hashesOf(host)).to.equal('SHA-1')
  })

  it('XEP-0388 §2.4, §4.8: what is not expected ends the stream: out of turn, twice, a second login', async () => {
    await using host = await start()
    const good = hashed(b64(Buffer.alloc(32, 7)))
    const authenticate = `<authenticate xmlns='${NS}' mechanism='PLAIN'><initial-response>${b64(`\0juliet\0${PASSWORD}`)}</initial-response></authenticate>`
    const response = `<response xmlns='${NS}'>AAAA</response>`
    for (const xml of [good, response, authenticate, "<iq type='get' id='a'><x xmlns='urn:x'/></iq>"]) {
      const { login } = await scramLogin(host, { inner: ask('SHA-256') })
      expect(outcome(await login.send(xml)), `instead of <next/>: ${xml}`).to.equal('error:policy-violation')
    }
    for (const xml of [next('SHA-256'), response, authenticate]) {
      const { login } = await begun(host)
      expect(outcome(await login.send(xml)), `instead of the hash: ${xml}`).to.equal('error:policy-violation')
    }
    const { login, data } = await begun(host)
    await login.send(hashed(b64(salted('SHA-256', data))))
    expect(outcome(await login.send(good)), 'a second hash').to.match(/^error:/)
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256')
  })

  it('another task than the one that was asked for fails the login', async () => {
    await using host = await start()
    for (const task of ['SHA-512', 'SHA-1', 'SHA-256-PLUS']) {
      const { login } = await scramLogin(host, { inner: ask('SHA-256') })
      expect(outcome(await login.send(next(task)))).to.equal('failure:malformed-request')
    }
  })

  it('XEP-0388 §4.5: aborted, before and within the task', async () => {
    await using host = await start()
    const abort = `<abort xmlns='${NS}'/>`
    const { login } = await scramLogin(host, { inner: ask('SHA-256') })
    expect(outcome(await login.send(abort))).to.equal('failure:aborted')
    const second = await begun(host)
    expect(outcome(await second.login.send(abort))).to.equal('failure:aborted')
    expect(outcome(await second.login.send(hashed(b64(Buffer.alloc(32)))))).to.equal('error:policy-violation')
    expect(await hashesOf(host)).to.equal('SHA-1')
  })

  it('lost halfway: nothing has changed, the next login is as the first', async () => {
    await using host = await start()
    const before = await host.service('auth').scramKeys('juliet', 'SHA-1')
    for (const step of [0, 1]) {
      const { login } = await scramLogin(host, { inner: ask('SHA-256') })
      if (step === 1) await login.ask(next('SHA-256'))
      await login.stream.drop()
      expect(await hashesOf(host)).to.equal('SHA-1')
    }
    expect(await host.service('auth').scramKeys('juliet', 'SHA-1')).to.deep.equal(before)
    const { login, data } = await begun(host)
    expect((await login.send(hashed(b64(salted('SHA-256', data)))))[0]?.getName()).to.equal('success')
  })

  it('two devices at the same time: the first one’s keys stay, both are logged in', async () => {
    await using host = await start()
    const [one, two, three] = [await begun(host), await begun(host), await begun(host, 'SHA-512')]
    await Promise.all(
      [
        [one, 'SHA-256'] as const,
        [two, 'SHA-256'] as const,
        [three, 'SHA-512'] as const, // another hash: neither undoes the other
      ].map(async ([{ login, data }, hash]) =>
        expect((await login.send(hashed(b64(salted(hash, data)))))[0]?.getName()).to.equal('success'),
      ),
    )
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256, SHA-512')
    const keys = await host.service('auth').scramKeys('juliet', 'SHA-256')
    expect([one, two].map(({ data }) => data.getChildText('salt', NS_SCRAM))).to.include(b64(keys!.salt))
    for (const mechanism of ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-512-PLUS'])
      expect((await scramLogin(host, { mechanism })).proven).to.equal(true)
  })

  it('one that has become needless ends with <next/>', async () => {
    await using host = await start()
    const { login } = await scramLogin(host, { inner: ask('SHA-256') })
    const other = await begun(host)
    await other.login.send(hashed(b64(salted('SHA-256', other.data))))
    expect((await login.send(next('SHA-256')))[0]?.getName()).to.equal('success')
  })

  it('RFC 6120 §6.5.3: the password was changed meanwhile: refused, the new one stays alone', async () => {
    await using host = await start()
    const { login, data } = await begun(host)
    await host.service('auth').setPassword('juliet', 'n3w passw0rd')
    const keys = await host.service('auth').scramKeys('juliet', 'SHA-256')
    expect(outcome(await login.send(hashed(b64(salted('SHA-256', data)))))).to.equal(
      'failure:credentials-expired',
    )
    expect(await host.service('auth').scramKeys('juliet', 'SHA-256')).to.deep.equal(keys)
  })

  it('the account was removed meanwhile, or has another owner: refused, nothing is stored', async () => {
    await using host = await start()
    const [one, two] = [await begun(host), await begun(host)]
    const old = await host.service('auth').scramKeys('juliet', 'SHA-1')
    await host.host.deleteAccount('juliet')
    expect(outcome(await one.login.send(hashed(b64(salted('SHA-256', one.data)))))).to.equal(
      'failure:credentials-expired',
    )
    expect(await host.service('auth').exists('juliet')).to.equal(false)
    const other = new Map([['SHA-1', { ...old!, storedKey: Buffer.alloc(20, 1) }] as const])
    await host.service('auth').scramStore!.create('juliet', other)
    expect(outcome(await two.login.send(hashed(b64(salted('SHA-256', two.data)))))).to.equal(
      'failure:credentials-expired',
    )
    expect(await hashesOf(host)).to.equal('SHA-1')
  })

  it('the password was changed before the task began, to one that needs no upgrade: refused, no token', async () => {
    await using host = await start()
    const token = `<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>`
    const { login } = await scramLogin(host, { inner: ask('SHA-256') + token })
    await host.service('auth').setPassword('juliet', 'n3w passw0rd')
    expect(outcome(await login.send(next('SHA-256')))).to.equal('failure:credentials-expired')
  })

  it('the name got another owner before the task began: refused, nothing is bound, nothing stored', async () => {
    await using host = await start()
    const keys = await host.service('auth').scramKeys('juliet', 'SHA-1')
    const { login } = await scramLogin(host, { inner: `${ask('SHA-256')}<bind xmlns='urn:xmpp:bind:0'/>` })
    await host.host.deleteAccount('juliet')
    await host.service('auth').scramStore!.create('juliet', new Map([['SHA-1', keys!]])) // lacks the hash too
    expect(outcome(await login.send(next('SHA-256')))).to.equal('failure:credentials-expired')
    expect(await hashesOf(host)).to.equal('SHA-1')
    expect(host.host.of('juliet')).to.have.length(0)
  })

  it('a store that fails costs the upgrade, not the login', async () => {
    const errors: string[] = []
    let fail = ''
    const failing = defineModule({
      name: 'failing',
      summary: 'test',
      specs: [],
      setup(ctx) {
        const auth = ctx.use('auth')
        const real = auth.scramStore!
        const stop = (what: string): void => {
          if (fail === what) throw new Error('the disk is full')
        }
        const store: Services['auth']['scramStore'] = {
          hashes: real.hashes,
          hashesOf: (local) => (stop('hashesOf'), real.hashesOf(local)),
          create: (local, keys) => real.create(local, keys),
          async upgrade(local, hash) {
            stop('upgrade')
            const upgrade = await real.upgrade(local, hash)
            return upgrade && { ...upgrade, finish: (key) => (stop('finish'), upgrade.finish(key)) }
          },
        }
        Object.defineProperty(auth, 'scramStore', { get: () => store })
      },
      requires: ['accounts'],
    })
    const store = await openMemory()
    {
      await using before = await hostWith(store, ['SHA-1'])
      await before.service('auth').create('juliet', PASSWORD)
    }
    await using host = await testHost({
      modules: [accounts, sasl, bind, sasl2, saslUpgrade, failing],
      config: { accounts: { iterations: 4096 } },
      store,
      onLog: (level, message) => void (level === 'error' && errors.push(message)),
    })
    for (const what of ['upgrade', 'finish']) {
      fail = what
      const { login } = await scramLogin(host, { inner: ask('SHA-256') })
      let [answer] = await login.send(next('SHA-256'))
      if (answer?.getName() === 'task-data')
        [answer] = await login.send(hashed(b64(salted('SHA-256', answer))))
      expect(answer?.getName(), what).to.equal('success')
    }
    fail = 'hashesOf'
    expect((await scramLogin(host, { inner: ask('SHA-256') })).answers[0]?.getName()).to.equal('success')
    expect(errors.filter((message) => message === 'keys cannot be added')).to.have.length(3)
    fail = ''
    expect(await hashesOf(host)).to.equal('SHA-1')
    const { login, data } = await begun(host)
    await login.send(hashed(b64(salted('SHA-256', data))))
    expect(await hashesOf(host)).to.equal('SHA-1, SHA-256')
  })

  it('what fails within a task is no guess of a password: auth-limits do not count it, the stream does', async () => {
    await using host = await start()
    const { login } = await begun(host)
    const results = [outcome(await login.send(hashed('')))]
    for (let i = 0; i < 12; i++) results.push(outcome(await login.send(`<abort xmlns='${NS}'/>`)))
    expect(results.at(-1)).to.equal('failure:aborted error:policy-violation')
    for (let i = 0; i < 4; i++) {
      const again = await begun(host)
      expect(outcome(await again.login.send(hashed('')))).to.equal('failure:malformed-request')
    }
    expect((await scramLogin(host, {})).answers[0]?.getName()).to.equal('success')
  })
})
