/**
 * @xmpp/client (https://github.com/xmppjs/xmpp.js) as a client that is told what to do: SASL2 with Bind 2, tokens and resumption within
 * the login. What a careful user of it does is here too: what could not be sent, or is not known to have arrived when a session is over,
 * is sent again with the same origin-id (XEP-0359); a new session begins with what the archive has (XEP-0386 §4: no offline messages).
 *
 * Version 0.14 does not count answers to iqs of its own iqCaller, so that after a resumption as many stanzas come twice; requests are made
 * without it here. With STARTTLS the end of an old connection may be taken for that of a new one, hence direct TLS.
 */
import { readFileSync } from 'node:fs'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { type Client, client, xml } from '@xmpp/client'
import type { Element } from 'ltx'
import { type Driven, Events } from './driven.ts'
import type { Login } from './resumption.ts'

const NS_SID = 'urn:xmpp:sid:0'
const NS_MAM = 'urn:xmpp:mam:2'
const NS_RSM = 'http://jabber.org/protocol/rsm'

/** A client; beyond what others tell it tells `authenticate` with the mechanism of each attempt to log in. */
export function startXmppClient({ jid, password, ca, domain }: Login): Driven {
  const system = getCACertificates('default')
  setDefaultCACertificates([...system, readFileSync(ca, 'utf8')])
  const events = new Events()
  const username = jid.slice(0, jid.indexOf('@'))
  const entity: Client = client({ service: '', domain, username, password })
  entity.reconnect.stop() // it is told when
  entity.streamManagement.requestAckDebounce = 10
  const bodyOf = (stanza: Element): string => stanza.getChildText('body') ?? ''
  const unsent: Element[] = []
  let ids = 0
  const answers = new Map<string, () => void>()

  const send = (stanza: Element): void => {
    entity.send(stanza).catch(() => unsent.push(stanza))
  }
  const request = async (type: 'get' | 'set', payload: Element): Promise<void> => {
    const id = `q${++ids}`
    const answered = new Promise<void>((resolve) => answers.set(id, resolve))
    send(xml('iq', { type, id, ...(type === 'get' ? { to: domain } : {}) }, payload))
    await answered
  }

  // What came, live or from the archive, once; the archive goes on where the last one was.
  const seen = new Set<string>()
  let newest: string | undefined
  const take = (message: Element, id: string | undefined): void => {
    if (id !== undefined && seen.has(id)) return
    if (id !== undefined) seen.add((newest = id))
    if (bodyOf(message) !== '' && message.attrs['from']?.startsWith(jid) !== true)
      events.add({ event: 'message', text: bodyOf(message) })
  }
  const catchUp = async (): Promise<void> => {
    const after = newest === undefined ? [] : [xml('after', {}, newest)]
    await request(
      'set',
      xml('query', { xmlns: NS_MAM }, xml('set', { xmlns: NS_RSM }, xml('max', {}, '100'), ...after)),
    )
  }
  entity.on('stanza', (element) => {
    const stanza = element as Element
    if (stanza.name === 'iq') answers.get(stanza.attrs['id'] ?? '')?.()
    if (stanza.name !== 'message') return
    const result = stanza.getChild('result', NS_MAM)
    const archived = result?.getChild('forwarded', 'urn:xmpp:forward:0')?.getChild('message', 'jabber:client')
    if (archived !== undefined) take(archived, result?.attrs['id'])
    else take(stanza, stanza.getChild('stanza-id', NS_SID)?.attrs['id'])
  })

  const begin = async (): Promise<void> => {
    send(xml('presence'))
    await catchUp()
    for (const stanza of unsent.splice(0)) send(stanza)
    events.add({ event: 'session_start', jid: entity.jid?.toString() ?? '' })
  }
  entity.on('online', () => void begin())
  entity.on('disconnect', () => events.add({ event: 'disconnected' }))
  entity.on('error', (error) => events.add({ event: 'error', text: String(error) }))
  entity.on('send', (element) => {
    const sent = element as Element
    if (sent.name !== 'authenticate') return
    const asks = sent.getChildElements().map((child) => child.getName())
    events.add({ event: 'authenticate', mechanism: sent.attrs['mechanism'], asks })
  })
  const { streamManagement } = entity
  streamManagement.on('ack', (stanza) => {
    if (stanza.name === 'message') events.add({ event: 'acked', text: bodyOf(stanza) })
  })
  streamManagement.on('fail', (stanza) => {
    if (stanza.name === 'message') unsent.push(stanza)
  })
  // A login that was cut off in the middle is still listened for in 0.14, so that the next one is told twice.
  let resumed = false
  streamManagement.on('resumed', () => {
    if (resumed) return
    resumed = true
    events.add({ event: 'session_resumed', jid: entity.jid?.toString() ?? '' })
    for (const stanza of unsent.splice(0)) send(stanza)
  })

  let started = false
  return {
    told: events.told,
    connect(port) {
      entity.options.service = `xmpps://localhost:${port}`
      const connecting = started ? entity.reconnect.reconnect() : entity.start()
      started = true
      resumed = false
      connecting.catch((error: unknown) => events.add({ event: 'error', text: String(error) }))
    },
    send(texts, to) {
      for (const text of texts)
        send(
          xml(
            'message',
            { to, type: 'chat' },
            xml('body', {}, text),
            xml('origin-id', { xmlns: NS_SID, id: `o${++ids}` }),
          ),
        )
    },
    sync: () => request('get', xml('ping', { xmlns: 'urn:xmpp:ping' })),
    next: (...names) => events.next(...names),
    until: (test, waitingFor) => events.until(test, waitingFor),
    async [Symbol.asyncDispose]() {
      await entity.stop().catch(() => undefined) // it may have lost its connection
      setDefaultCACertificates(system)
    },
  }
}
