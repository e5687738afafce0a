/**
 * Converse.js in headless Chromium, from the server's own page at http://localhost: two users in two browsers log in, see each other, and
 * chat both ways, while nothing is asked of any other host. Screenshots go to test/output. Canaries: a wrong password, a text nobody sends.
 */
import { expect } from 'chai'
import { after, afterEach, before, it } from 'mocha'
import { Client } from '../helpers/client.ts'
import { Browser, CHROMIUM } from './browser.ts'
import { describeWith, type Running, targets } from './targets.ts'

const PASSWORD = 'a good password'

/** Makes two accounts each other's contacts. */
async function befriend(target: Running, one: string, other: string): Promise<void> {
  const login = async (local: string) => {
    const client = await Client.connect(target, 'tls', local)
    await client.authenticate(local, PASSWORD)
    await client.bind()
    await client.roster()
    await client.goOnline()
    return client
  }
  const [a, b] = [await login(one), await login(other)]
  for (const [from, to, name] of [
    [a, b, other],
    [b, a, one],
  ] as const) {
    const address = `${name}@${target.domain}`
    from.send(`<presence type='subscribe' to='${address}'/>`)
    await to.eventually(`<presence type='subscribe' etc=''>...</presence>`)
    to.send(`<presence type='subscribed' to='${from.jid.split('/')[0]}'/>`)
    await from.eventually(`<presence type='subscribed' etc=''>...</presence>`)
  }
  for (const client of [a, b]) {
    await client.ping()
    client.drop()
  }
}

const [, open] = targets[0] ?? []
describeWith(
  CHROMIUM === undefined ? 'chromium' : undefined,
  'Converse.js in Chromium against hermod',
  () => {
    let target: Running | undefined
    let shot: Browser | undefined
    before(async function () {
      this.timeout(60_000)
      target = await open?.()
      for (const user of ['romeo', 'juliet']) await target?.addUser(user, PASSWORD)
      if (target !== undefined) await befriend(target, 'romeo', 'juliet')
    })
    afterEach(async function () {
      if (this.currentTest?.state === 'failed') await shot?.screenshot('failed').catch(() => undefined)
    })
    after(async function () {
      this.timeout(20_000)
      await target?.[Symbol.asyncDispose]()
    })
    const url = () => `http://localhost:${target?.ports.http}/`

    it('two users log in and chat both ways, and no other host is asked for anything', async function () {
      this.timeout(120_000)
      await using romeo = await Browser.start(url())
      shot = romeo
      await using juliet = await Browser.start(url())
      await romeo.login('romeo', PASSWORD)
      await juliet.login('juliet', PASSWORD)
      await romeo.chatWith('juliet@localhost')
      await juliet.chatWith('romeo@localhost')
      await romeo.say('But soft, what light')
      await juliet.shows('But soft, what light')
      await juliet.say('Grüße & <Küsse> 🌹')
      await romeo.shows('Grüße & <Küsse> 🌹')
      await romeo.screenshot('romeo')
      await juliet.screenshot('juliet')
      // Canary: what nobody sends is not shown.
      let shown = true
      await juliet.shows('It is the nightingale', 1500).catch(() => (shown = false))
      expect(shown).to.equal(false)
      for (const browser of [romeo, juliet]) expect([...browser.hosts]).to.deep.equal(['localhost'])
      shot = undefined
    })

    it('a wrong password is refused', async function () {
      this.timeout(60_000)
      await using romeo = await Browser.start(url())
      shot = romeo
      await romeo.login('romeo', 'a wrong password')
      await romeo.page
        .getByText(/authentication failed|not.authorized|password (?:is )?incorrect/i)
        .first()
        .waitFor()
      expect(await romeo.page.locator('converse-chat').count()).to.equal(0)
      expect([...romeo.hosts]).to.deep.equal(['localhost'])
      shot = undefined
    })
  },
)
