/**
 * XEP-0480 SASL Upgrade Tasks 0.2.0: an account that lacks the SCRAM keys of some hash (made before that hash was used here, or brought
 * from another server) gets them during a login, from a client that asks to. Only the client has the password, so it makes the keys.
 *
 * What a client sends is kept as the key of that hash without a way to compare it with the keys that are there. Therefore only who has
 * just shown that he knows the password is asked: not who came with a token (XEP-0484), a certificate, or no account.
 */
import { type Ctx, defineModule, type Services, type Session } from '../server/module.ts'
import { type Element, el } from '../server/xmpp/element.ts'
import { SaslError } from '../server/xmpp/errors.ts'

const NS_UPGRADE = 'urn:xmpp:sasl:upgrade:0'
const NS_SCRAM = 'urn:xmpp:scram-upgrade:0'

type Task = Parameters<Services['sasl2']['addTask']>[0]
type Login = Parameters<Task['wanted']>[0]
type Turn = Awaited<ReturnType<Task['start']>>
type Store = NonNullable<Services['auth']['scramStore']>
type Hash = Store['hashes'][number]
type KeyUpgrade = NonNullable<Awaited<ReturnType<Store['upgrade']>>>

/** §2.1: in the order in which they are announced and asked for. */
const HASHES: readonly Hash[] = ['SHA-512', 'SHA-256', 'SHA-1']
/** §2.1, §3: without -PLUS, since keys have nothing to do with channel binding. */
const nameOf = (hash: Hash): string => `UPGR-SCRAM-${hash}`
const DONE: Turn = { done: [] }

export default defineModule({
  name: 'sasl-upgrade',
  summary: 'Lets clients add keys of newer hashes to their account when they log in',
  specs: [
    { xep: 480, version: '0.2.0', status: 'complete' },
    { rfc: 5802, sections: '3' },
    { rfc: 6120, sections: '6.5.3' },
  ],
  requires: ['sasl', 'sasl2'],
  optional: ['accounts', 'auth-http', 'auth-ldap'],
  setup(ctx) {
    const upgrades = new Upgrades(ctx)
    const added = HASHES.map((hash) => ctx.use('sasl2').addTask(upgrades.task(hash)))
    return {
      stop() {
        for (const task of added) task[Symbol.dispose]()
      },
    }
  },
})

class Upgrades {
  readonly #ctx: Ctx
  readonly #stored: { add(n?: number): void }

  constructor(ctx: Ctx) {
    this.#ctx = ctx
    this.#stored = ctx.metrics.counter('stored', 'Accounts that got keys of one more hash')
  }

  /** Looked up when used, since the provider may be reloaded; undefined where accounts have keys of all hashes, or get them elsewhere. */
  get #store(): Store | undefined {
    return this.#ctx.find('auth')?.scramStore
  }

  task(hash: Hash): Task {
    return {
      name: nameOf(hash),
      alone: true, // §2.2: after second factors; "MUST contain a single task"
      advertise: (s) => this.#advertise(s, hash),
      wanted: (login) => this.#wanted(login, hash),
      start: ({ jid, generation }) => this.#start(jid.local, hash, generation),
    }
  }

  /** §2.1, where there may be something to do: the claimed account lacks the hash, or, when none is claimed, some account does. */
  #advertise(s: Session, hash: Hash): readonly Element[] {
    if (this.#store?.hashes.includes(hash) !== true || this.#ctx.use('sasl').hashes(s).includes(hash))
      return []
    return [el('upgrade', NS_UPGRADE, {}, nameOf(hash))]
  }

  /** §2.2: what the client has asked for, whatever it was offered: before the login nobody could know. */
  async #wanted({ jid, password, request }: Login, hash: Hash): Promise<boolean> {
    const asked = request
      .getChildren('upgrade', NS_UPGRADE)
      .some((child) => child.text().trim() === nameOf(hash))
    if (!asked || !password || this.#store?.hashes.includes(hash) !== true) return false
    const has = await this.#orNothing(() => this.#store?.hashesOf(jid.local))
    return has?.includes(hash) === false
  }

  async #start(local: string, hash: Hash, generation: string | undefined): Promise<Turn> {
    const upgrade = await this.#orNothing(() => this.#store?.upgrade(local, hash, generation))
    // another device was quicker, nothing can be stored now, or the password is another one, for which sasl2 refuses the login
    if (upgrade === undefined) return DONE
    const { salt, iterations } = upgrade
    const data = el(
      'salt',
      NS_SCRAM,
      { iterations: String(iterations) },
      Buffer.from(salt).toString('base64'),
    )
    return { data: [data], next: (answer) => this.#finish(local, hash, upgrade, answer) }
  }

  /** §3: "the base64 encoded value" of SaltedPassword. */
  async #finish(local: string, hash: Hash, upgrade: KeyUpgrade, answer: Element): Promise<Turn> {
    const salted = saltedPassword(answer, upgrade.bytes)
    const outcome = await this.#orNothing(() => upgrade.finish(salted))
    // RFC 6120 §6.5.3: the password that was shown at the beginning is not that of the account any more
    if (outcome === 'changed') throw new SaslError('credentials-expired')
    if (outcome === 'stored') {
      this.#stored.add()
      this.#ctx.log.info('keys added', { account: local, hash })
    }
    return DONE
  }

  /** A store that fails costs the upgrade, which the client will ask for again, not the login. */
  async #orNothing<T>(ask: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await ask()
    } catch (error) {
      this.#ctx.log.error('keys cannot be added', { err: error })
      return undefined
    }
  }
}

/** SaltedPassword of RFC 5802 §3 in one <hash/> of that many bytes; xs:base64Binary (§8) may have white space. */
function saltedPassword(answer: Element, bytes: number): Uint8Array {
  const [element, ...more] = answer.elements
  if (element?.is('hash', NS_SCRAM) !== true || more.length > 0 || element.elements.length > 0)
    throw new SaslError('malformed-request', 'one <hash/> expected')
  const text = element.text().replaceAll(/[ \t\r\n]/g, '')
  const salted = Buffer.from(text, 'base64')
  if (salted.toString('base64') !== text) throw new SaslError('incorrect-encoding')
  if (salted.length !== bytes) throw new SaslError('malformed-request', 'not a salted password of that hash')
  return salted
}
