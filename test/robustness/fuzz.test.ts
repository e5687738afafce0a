/**
 * Random stanzas of sessions that are logged in: the server has no bug that it notices (no line of level error), every iq of type get or set
 * gets exactly one answer (RFC 6120 §8.2.3 rule 3), no session ends, and others do not notice.
 * `HERMOD_FUZZ_SEED` repeats a run, `HERMOD_FUZZ_SECONDS` makes it longer.
 */
import { expect } from 'chai'
import { randomInt } from 'node:crypto'
import { escapeXML } from 'ltx'
import { Client } from '../helpers/client.ts'
import { startServer } from '../helpers/server.ts'
import { Random, Stanzas } from './random-stanzas.ts'

const SECONDS = Number(process.env['HERMOD_FUZZ_SECONDS'] ?? 8)
const WINDOW = 60

/** Answers requests as a client that knows nothing of them; notes the answers it gets. */
class Participant {
  readonly client: Client
  readonly answers = new Map<string, number>()
  #on = true
  readonly #waiting = new Map<string, () => void>()

  constructor(client: Client) {
    this.client = client
  }

  /** Reads until stopped. */
  async read(): Promise<void> {
    const { client } = this
    while (this.#on) {
      await client.until(() => client.inbox.length > 0 || !this.#on, 'anything')
      for (const item of client.inbox.splice(0)) {
        if (item.kind !== 'element') client.fail(`the session has ended: ${item.kind}`)
        else if (item.el.getName() === 'iq') this.#iq(item.el.attrs)
        else if (item.el.getName() === 'error') client.fail(item.el.toString())
      }
    }
  }

  #iq({ type, id = '', from = '' }: Readonly<Record<string, string | undefined>>): void {
    if (type === 'result' || type === 'error') {
      this.answers.set(id, (this.answers.get(id) ?? 0) + 1)
      this.#waiting.get(id)?.()
    } else
      this.client.sendStanza(
        `<iq type='error' id='${escapeXML(id)}'${from === '' ? '' : ` to='${escapeXML(from)}'`}><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`,
      )
  }

  /** Resolves when a request has its answer. */
  async answered(id: string): Promise<void> {
    if (!this.answers.has(id)) await new Promise<void>((resolve) => this.#waiting.set(id, resolve))
    this.#waiting.delete(id)
  }

  async stop(): Promise<void> {
    this.#on = false
    // wakes the reader
    this.client.sendStanza(
      `<iq type='get' id='end-of-reading' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>`,
    )
  }
}

describe('random stanzas', function () {
  this.timeout((SECONDS + 40) * 1000)

  it('no internal error, one answer to each request, no session ends, others are served', async () => {
    // a change is judged by the same stanzas each time; elsewhere each run has its own
    const fallback = process.env['CI'] === undefined ? randomInt(2_000_000_000) : 663_032_096
    const seed = Number(process.env['HERMOD_FUZZ_SEED'] ?? fallback)
    console.log(`      seed ${seed}`)
    const fast = { rate: '1 GiB', burst: '1 GiB', ratePerAddress: '1 GiB', burstPerAddress: '1 GiB' }
    await using server = await startServer({
      modules: {
        starttls: { required: false },
        sasl: { requireTls: false, plainInClear: true },
        accounts: { iterations: 4096 },
        register: { enabled: true, remove: false },
      },
      config: { limits: fast },
    })
    const login = async (
      local: string,
      resource: string,
      via: 'tcp' | 'websocket' = 'tcp',
    ): Promise<Client> => {
      const client = await Client.connect(server, via, local)
      client.timeoutMs = 20_000
      await client.authenticate(local, 'secret', 'PLAIN')
      await client.bind(resource)
      return client
    }
    for (const user of ['romeo', 'juliet', 'nurse', 'tybalt', 'mercutio'])
      await server.addUser(user, 'secret')
    const fuzzers = [
      new Participant(await login('romeo', 'orchard')),
      new Participant(await login('tybalt', 'street', 'websocket')),
    ]
    const others = [
      new Participant(await login('juliet', 'balcony')),
      new Participant(await login('romeo', 'other')),
    ]
    const talkers = [await login('nurse', 'r'), await login('mercutio', 'r')] as const
    for (const { client } of [...fuzzers, ...others]) client.sendStanza('<presence/>')
    const reading = Promise.all([...fuzzers, ...others].map((participant) => participant.read()))
    reading.catch(() => undefined) // told below

    const jids = [...fuzzers, ...others].map(({ client }) => client.jid)
    const until = performance.now() + SECONDS * 1000
    let talks = 0
    const talking = (async () => {
      const [one, two] = talkers
      while (performance.now() < until) {
        one.sendStanza(`<message to='${two.jid}' id='t${talks}'/>`)
        await two.expect(`<message id='t${talks}' etc=''/>`)
        talks++
      }
    })()
    const expected = fuzzers.map(() => new Set<string>())
    await Promise.all(
      fuzzers.map(async (fuzzer, i) => {
        const self = fuzzer.client.jid
        const cast = { domain: 'localhost', self, others: jids.filter((jid) => jid !== self) }
        const stanzas = new Stanzas(new Random(seed + i), cast, `f${i}-`)
        const asked = expected[i] ?? new Set()
        while (performance.now() < until) {
          for (let n = 0; n < WINDOW; n++) {
            const { xml, id, answers } = stanzas.next()
            if (answers === 1) asked.add(id)
            fuzzer.client.sendStanza(xml)
          }
          const ping = `p${i}-${asked.size}-${Math.round(performance.now())}`
          fuzzer.client.sendStanza(
            `<iq type='get' id='${ping}' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>`,
          )
          await Promise.race([fuzzer.answered(ping), reading])
        }
      }),
    )
    await talking
    const missing = (): string[] =>
      fuzzers.flatMap((fuzzer, i) => [...(expected[i] ?? [])].filter((id) => !fuzzer.answers.has(id)))
    for (let i = 0; i < 2000 && missing().length > 0; i++) {
      talkers[0].sendStanza(`<message to='${talkers[1].jid}' id='w${i}'/>`)
      await talkers[1].expect(`<message id='w${i}' etc=''/>`)
    }
    for (const participant of [...fuzzers, ...others]) await participant.stop()
    await reading
    expect(missing(), `seed ${seed}: requests without an answer`).to.deep.equal([])
    for (const [i, fuzzer] of fuzzers.entries())
      for (const id of expected[i] ?? [])
        expect(fuzzer.answers.get(id), `seed ${seed}: answers to ${id}`).to.equal(1)
    const total = expected.reduce((sum, ids) => sum + ids.size, 0)
    console.log(`      ${total} requests, ${talks} messages of others`)
    expect(total).to.be.above(500)
    expect(talks).to.be.above(50)
    for (const { client } of [...fuzzers, ...others]) client.drop()
    for (const client of talkers) client.drop()
  })
})
