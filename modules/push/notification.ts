/** What is published (XEP-0357 §7, XEP-0060 §7.1), and the options that a client gives for it (§5). */
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type FormValues, submitElement } from '../../server/xmpp/forms.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'
import { NS_PUBSUB, NS_PUSH, PUBLISH_OPTIONS, SUMMARY } from './ns.ts'

/** How deployed app servers are told to hurry; an element that may be added (§7). */
const PRIORITY = 'tigase:push:priority:0'

/** What an app server is told. */
export interface Summary {
  readonly messages: number
  readonly subscriptions: number | undefined
  readonly sender: string | undefined
  readonly body: string | undefined
  /** Somebody calls. */
  readonly urgent: boolean
}

/** The payload of the request (§7). `options`: as stored. */
export function publishElement(node: string, options: string | undefined, summary: Summary): Element {
  const values: FormValues = {
    'message-count': summary.messages,
    ...(summary.subscriptions === undefined ? {} : { 'pending-subscription-count': summary.subscriptions }),
    ...(summary.sender === undefined ? {} : { 'last-message-sender': summary.sender }),
    ...(summary.body === undefined ? {} : { 'last-message-body': summary.body }),
  }
  const notification = el(
    'notification',
    NS_PUSH,
    {},
    submitElement(values, { formType: SUMMARY }),
    summary.urgent ? el('priority', PRIORITY, {}, 'high') : undefined,
  )
  return el(
    'pubsub',
    NS_PUBSUB,
    {},
    // XEP-0060 §7.1.1: 'node' must be there, also when the client has named none
    el('publish', NS_PUBSUB, { node }, el('item', NS_PUBSUB, {}, notification)),
    // §7: what was given when it was enabled
    options === undefined ? undefined : el('publish-options', NS_PUBSUB, {}, parseXml(options)),
  )
}

/**
 * The publish options within <enable/> (§5) as they are stored, undefined when there are none. Throws StanzaError: bad-request (not a
 * submitted form), policy-violation (longer than `maxBytes`).
 */
export function optionsOf(enable: Element, maxBytes: number): string | undefined {
  const forms = enable.getChildren('x', NS.DATA)
  const form = forms.find((x) => formType(x) === PUBLISH_OPTIONS)
  if (form === undefined) {
    if (forms.length === 0) return undefined
    throw new StanzaError('bad-request', { text: `the form needs the FORM_TYPE ${PUBLISH_OPTIONS}` })
  }
  const type = form.attr('type')
  if (type !== undefined && type !== 'submit')
    throw new StanzaError('bad-request', { text: 'a form of type submit is expected' })
  const fields: Element[] = []
  for (const field of form.getChildren('field', NS.DATA)) {
    const name = field.attr('var')
    if (name === undefined || name === '')
      throw new StanzaError('bad-request', { text: 'a field without a name' })
    if (name === 'FORM_TYPE') continue
    const values = field.getChildren('value', NS.DATA).map((value) => el('value', NS.DATA, {}, value.text()))
    fields.push(el('field', NS.DATA, { var: name }, ...values))
  }
  const text = submitElement({}, { formType: PUBLISH_OPTIONS })
    .append(...fields)
    .toString()
  if (Buffer.byteLength(text) > maxBytes)
    throw new StanzaError('policy-violation', { text: `publish options take more than ${maxBytes} bytes` })
  return text
}

function formType(x: Element): string | undefined {
  return x
    .getChildren('field', NS.DATA)
    .find((field) => field.attr('var') === 'FORM_TYPE')
    ?.getChildText('value', NS.DATA)
}
