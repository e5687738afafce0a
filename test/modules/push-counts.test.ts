/** XEP-0357: each message counts once for each device, however many they are and whatever ways they take. */
import { expect } from 'chai'
import push from '../../modules/push/index.ts'
import { APP, managed, type PushStage, pushStage, ROMEO, SM_ENABLE } from '../helpers/push.ts'

const END = 700_000 // a session that nobody comes back to is over

async function say(stage: PushStage, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await stage.say(`${i}`)
}
/** What is told last within half a minute: node and number. */
const last = async (stage: PushStage): Promise<string | undefined> =>
  (await stage.app.during(stage.host, 30_000)).at(-1)

describe('push: counts (XEP-0357)', () => {
  for (const without of [[], ['mam']] as const)
    for (const count of [60, 64, 65, 300])
      it(`${count} messages for a session without stream, which ends${without.length > 0 ? ', without an archive' : ''}`, async () => {
        await using stage = await pushStage({}, {}, without)
        const { client } = await managed(stage, 'phone')
        await client.drop()
        await say(stage, count)
        expect(await last(stage)).to.equal(`phone ${count}`)
        expect(await stage.app.during(stage.host, END)).to.deep.equal([])
        await stage.say('more')
        expect(await last(stage)).to.equal(`phone ${count + 1}`)
      })

  it('300 that a connected device does not confirm: told when it is silent, and neither when its stream is lost nor at its end', async () => {
    await using stage = await pushStage()
    const { client } = await managed(stage, 'phone')
    await say(stage, 300)
    expect(await stage.app.counts()).to.deep.equal([])
    await stage.host.clock.advance(31_000)
    expect(await last(stage)).to.equal('phone 300')
    await client.drop()
    expect(await stage.app.during(stage.host, END)).to.deep.equal([])
    await stage.say('more')
    expect(await last(stage)).to.equal('phone 301')
  })

  it('300 that it has not confirmed when its stream is lost, and 100 later', async () => {
    await using stage = await pushStage()
    const { client } = await managed(stage, 'phone')
    await say(stage, 300)
    await client.drop()
    await say(stage, 100)
    expect(await last(stage)).to.equal('phone 400')
    expect(await stage.app.during(stage.host, END)).to.deep.equal([])
  })

  it('100 that another device was to get, whose session ends', async () => {
    await using stage = await pushStage()
    await stage.away('phone')
    const desk = await stage.device('desk')
    await desk.send(SM_ENABLE)
    await desk.drop()
    await say(stage, 100)
    expect(await last(stage)).to.equal('phone 100')
    expect(await stage.app.during(stage.host, END)).to.deep.equal([])
  })

  it('100 that another device was to get, and that go to the session of this one, which has no stream either', async () => {
    await using stage = await pushStage()
    const desk = await stage.device('desk', '<presence><priority>5</priority></presence>')
    await desk.send(SM_ENABLE)
    await desk.drop()
    await stage.host.clock.advance(300_000)
    const { client } = await managed(stage, 'phone')
    await client.drop()
    await say(stage, 100)
    expect(await last(stage)).to.equal('phone 100')
    expect(await stage.app.during(stage.host, 2 * END)).to.deep.equal([])
  })

  it('many in the archive do not make it forget others', async () => {
    await using stage = await pushStage()
    const { client } = await managed(stage, 'phone')
    await client.drop()
    const passing = "<body>x</body><no-permanent-store xmlns='urn:xmpp:hints'/>"
    for (let i = 0; i < 100; i++) await stage.send(passing)
    await say(stage, 100)
    expect(await last(stage)).to.equal('phone 200')
    expect(await stage.app.during(stage.host, END)).to.deep.equal([])
  })

  it('what came again with a new session, and was not confirmed there either, is told again', async () => {
    await using stage = await pushStage()
    const { client } = await managed(stage, 'phone')
    await client.drop()
    await stage.say('one')
    expect(await last(stage)).to.equal('phone 1')
    const again = await stage.host.client(`${ROMEO}/phone`)
    await again.send(SM_ENABLE)
    const got = await again.send('<presence/>')
    expect(got.filter((e) => e.getChildText('body') === 'one')).to.have.length(1)
    await again.drop()
    expect(await last(stage)).to.equal('phone 1')
    expect(await stage.app.during(stage.host, END)).to.deep.equal([])
  })

  it('the module is loaded anew before a session is over: what was told before is not told again', async () => {
    await using stage = await pushStage()
    const { client } = await managed(stage, 'phone')
    await client.drop()
    await say(stage, 2)
    expect(await last(stage)).to.equal('phone 2')
    await stage.host.unload('push')
    await stage.host.load(push)
    expect(await stage.app.during(stage.host, END)).to.deep.equal([])
    await stage.say('three')
    expect(await last(stage)).to.equal('phone 3')
  })

  it('a message that says itself that it waited is one like others', async () => {
    await using stage = await pushStage()
    await stage.away('phone')
    const delayed = `<body>x</body><delay xmlns='urn:xmpp:delay' from='${APP}' stamp='2026-01-01T00:00:00Z'/>`
    for (let i = 0; i < 3; i++) await stage.send(delayed)
    expect(await last(stage)).to.equal('phone 3')
  })
})
