/**
 * What devices have enabled (XEP-0357 §5, §6): in the store, one document each, and in memory for accounts that were looked at lately. The
 * store is what counts: a job reads it again, in whatever process it runs.
 */
import { createHash } from 'node:crypto'
import type { Ctx, Docs } from '../../server/module.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type JID, parseJid } from '../../server/xmpp/jid.ts'

/** A registration in the store. */
export type RegistrationDoc = {
  readonly jid: string
  /** '' when the client named none. */
  readonly node: string
  /** Publish options as XML; a secret, for the app server only. */
  readonly options: string
  /** The device that enabled it: its resource, and what it said of itself (XEP-0388 §2.3), '' when it did not. */
  readonly resource: string
  readonly agent: string
  readonly enabledAt: number
  /** Messages that the device has not seen, since it was last there. */
  readonly count: number
  /** '1': there is something to be told. */
  readonly due: string
  /** Raised whenever something becomes due and when the device has seen everything; documents of earlier versions have none. */
  readonly generation?: number
  readonly pushedAt: number
  /** Failures in a row, and since when. */
  readonly errors: number
  readonly failingSince: number
  /** Of the last message; only where the configuration says so. */
  readonly sender: string
  readonly body: string
  /** The newest entry of the account's archive that the device was told of; documents of earlier versions have none. */
  readonly newest?: string
}
/** A registration in memory. */
export interface Registration {
  readonly local: string
  /** Key of its document. */
  readonly key: string
  readonly jid: JID
  readonly node: string
  readonly resource: string
  readonly agent: string
  readonly enabledAt: number
  /** The session that enabled it, as long as this process knows. */
  readonly session: string | undefined
  /** When something was published last, as far as this process knows. */
  pushedAt: number
  /** The device has messages to see, or something is due. */
  owed: boolean
  /** The newest entry of the archive that the device was told of, '' when there is none. */
  newest: string
}
/** What a client asks for. */
export interface Wanted {
  readonly jid: JID
  readonly node: string
  readonly options: string | undefined
  readonly resource: string
  readonly agent: string
  readonly session: string | undefined
}

/** Accounts in memory; of more, the oldest are read again when they are needed. */
const MAX_ACCOUNTS = 50_000
/** How long a removed account is remembered, for what is being written. */
const GONE_MS = 60_000
const NONE: readonly Registration[] = []

/** The registrations of one host. */
export class Registrations {
  readonly #ctx: Ctx
  readonly #max: number
  readonly #docs: Docs<RegistrationDoc>
  readonly #known = new Map<string, readonly Registration[]>()
  readonly #loading = new Map<string, Promise<readonly Registration[]>>()
  /** Accounts that were removed a moment ago, and how often. */
  readonly #gone = new Map<string, number>()

  constructor(ctx: Ctx, maxPerAccount: number) {
    this.#ctx = ctx
    this.#max = maxPerAccount
    this.#docs = ctx.storage.docs<RegistrationDoc>('registrations', { index: ['due'] })
  }

  /** Accounts in memory. */
  get size(): number {
    return this.#known.size
  }

  /** Those of an account if they are in memory. */
  known(local: string): readonly Registration[] | undefined {
    return this.#known.get(local)
  }

  /** Those of an account. */
  load(local: string): Promise<readonly Registration[]> {
    const known = this.#known.get(local)
    if (known !== undefined) return Promise.resolve(known)
    let loading = this.#loading.get(local)
    if (loading === undefined) {
      loading = this.#read(local).finally(() => this.#loading.delete(local))
      this.#loading.set(local, loading)
    }
    return loading
  }

  async #read(local: string): Promise<readonly Registration[]> {
    const found: Registration[] = []
    for await (const [key, doc] of this.#docs.list(local)) found.push(inMemory(local, key, doc, undefined))
    // what was enabled meanwhile has been put there already
    return this.#known.get(local) ?? this.#keep(local, found)
  }

  #keep(local: string, list: readonly Registration[]): readonly Registration[] {
    this.#known.delete(local)
    if (this.#known.size >= MAX_ACCOUNTS) {
      for (const [oldest] of this.#known) {
        this.#known.delete(oldest)
        break
      }
    }
    const kept = list.length === 0 ? NONE : list
    this.#known.set(local, kept)
    return kept
  }

  /** §5: the last request for a combination of address and node counts. The account's oldest makes room for one too many. */
  async enable(local: string, wanted: Wanted): Promise<void> {
    const removals = this.#gone.get(local)
    const key = keyOf(wanted.jid, wanted.node)
    const { jid, node, options, resource, agent, session } = wanted
    const doc: RegistrationDoc = {
      jid: jid.toString(),
      node,
      options: options ?? '',
      resource,
      agent,
      enabledAt: this.#ctx.now(),
      count: 0,
      due: '',
      generation: 0,
      pushedAt: 0,
      errors: 0,
      failingSince: 0,
      sender: '',
      body: '',
    }
    await this.load(local)
    await this.#docs.put(local, key, doc)
    if (this.#gone.get(local) !== removals) {
      // nobody of that name shall inherit it
      await this.#docs.delete(local, key)
      throw new StanzaError('item-not-found', { text: 'the account was removed' })
    }
    const others = (this.#known.get(local) ?? NONE).filter((one) => one.key !== key)
    const surplus = others
      .toSorted((a, b) => a.enabledAt - b.enabledAt)
      .slice(0, Math.max(0, others.length + 1 - this.#max))
    this.#keep(local, [...others.filter((one) => !surplus.includes(one)), inMemory(local, key, doc, session)])
    for (const one of surplus) await this.#docs.delete(local, one.key)
  }

  /** §6: of one address, those of one node or (undefined) all. */
  async disable(local: string, jid: JID, node: string | undefined): Promise<void> {
    const all = await this.load(local)
    const gone = all.filter((one) => one.jid.equals(jid) && (node === undefined || one.node === node))
    for (const { key } of gone) {
      await this.#docs.delete(local, key)
      this.#forget(local, key)
    }
  }

  #forget(local: string, key: string): void {
    const all = this.#known.get(local)
    if (all !== undefined)
      this.#keep(
        local,
        all.filter((one) => one.key !== key),
      )
  }

  /** The account is gone, with all of its data. */
  forgetAccount(local: string): void {
    this.#known.delete(local)
    this.#gone.set(local, (this.#gone.get(local) ?? 0) + 1)
    this.#ctx.timers.after(GONE_MS, () => void this.#gone.delete(local))
  }

  /** As stored now; undefined: it is not enabled any more. */
  get(local: string, key: string): Promise<RegistrationDoc | undefined> {
    return this.#docs.get(local, key)
  }

  /** Whether it is still what was read, as far as this process knows. */
  isCurrent(local: string, key: string, { enabledAt }: RegistrationDoc): boolean {
    const all = this.#known.get(local)
    return all === undefined || all.some((one) => one.key === key && one.enabledAt === enabledAt)
  }

  /** Changes what is stored, unless it is gone; resolves to what is stored then. */
  async change(
    local: string,
    key: string,
    fn: (doc: RegistrationDoc) => Partial<RegistrationDoc> | undefined,
  ): Promise<RegistrationDoc | undefined> {
    const doc = await this.#docs.update(local, key, (old) =>
      old === undefined ? undefined : { ...old, ...fn(old) },
    )
    const known = this.#known.get(local)?.find((one) => one.key === key)
    if (known !== undefined && doc !== undefined) {
      known.pushedAt = doc.pushedAt
      known.owed = isOwed(doc)
      known.newest = doc.newest ?? ''
    }
    if (doc === undefined) this.#forget(local, key)
    return doc
  }

  /** Removes one that the app server does not know any more; not when it was enabled again meanwhile. */
  async remove(local: string, key: string, enabledAt: number): Promise<boolean> {
    const left = await this.#docs.update(local, key, (old) =>
      old?.enabledAt === enabledAt ? undefined : old,
    )
    if (left === undefined) this.#forget(local, key)
    return left === undefined
  }

  /** All of which something is due: account and key. */
  async *due(): AsyncIterable<readonly [local: string, key: string]> {
    for await (const [local, key] of this.#docs.find('due', '1')) yield [local, key]
  }
}

function inMemory(
  local: string,
  key: string,
  doc: RegistrationDoc,
  session: string | undefined,
): Registration {
  const { node, resource, agent, enabledAt, pushedAt } = doc
  return {
    local,
    key,
    jid: parseJid(doc.jid),
    node,
    resource,
    agent,
    enabledAt,
    session,
    pushedAt,
    owed: isOwed(doc),
    newest: doc.newest ?? '',
  }
}

/** Whether a document is still about what it was about when it was read: nothing has come for the device since, nor has it been there. */
export const isUnchanged = (read: RegistrationDoc, now: RegistrationDoc): boolean =>
  read.enabledAt === now.enabledAt && (read.generation ?? 0) === (now.generation ?? 0)

const isOwed = (doc: RegistrationDoc): boolean => doc.count > 0 || doc.due === '1'

/** Address and node may be longer than a key of the store. */
function keyOf(jid: JID, node: string): string {
  return createHash('sha256').update(`${jid.toString()}\0${node}`).digest('base64url')
}
