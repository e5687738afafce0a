/** Payloads of jabber:iq:register (XEP-0077 §3, §4, §14): what is asked, and what was answered by form or by the old fields. */
import { type Element, el } from '../../server/xmpp/element.ts'
import { StanzaError } from '../../server/xmpp/errors.ts'
import { type Field, formElement, parseSubmit } from '../../server/xmpp/forms.ts'
import { NS } from '../../server/xmpp/ns.ts'

/** The namespace of queries, also the FORM_TYPE of registration. */
export const NS_REGISTER = 'jabber:iq:register'
/** FORM_TYPE of a new password (§13.4.3). */
export const CHANGE_PASSWORD = 'jabber:iq:register:changepassword'
const NS_OOB = 'jabber:x:oob'

const FIELDS = [
  { var: 'username', type: 'text-single', label: 'User name', required: true },
  { var: 'password', type: 'text-private', label: 'Password', required: true },
] as const satisfies readonly Field[]

/** §3.1, §6: a form for those who know forms, the old fields for the others. */
export function fieldsElement(instructions: string): Element {
  return el(
    'query',
    NS_REGISTER,
    {},
    el('instructions', NS_REGISTER, {}, instructions),
    el('username', NS_REGISTER),
    el('password', NS_REGISTER),
    formElement(FIELDS, {}, { formType: NS_REGISTER, title: 'New account', instructions }),
  )
}

/** §5: registration happens elsewhere. */
export function redirectElement(url: string): Element {
  return el(
    'query',
    NS_REGISTER,
    {},
    el('instructions', NS_REGISTER, {}, `To register, visit ${url}`),
    el('x', NS_OOB, {}, el('url', NS_OOB, {}, url)),
  )
}

/** §3.1: the asker has an account; the password is not told. */
export function registeredElement(local: string): Element {
  return el(
    'query',
    NS_REGISTER,
    {},
    el('registered', NS_REGISTER),
    el('username', NS_REGISTER, {}, local),
    el('password', NS_REGISTER),
  )
}

/** §3.2: whether the query asks to remove the account; throws bad-request when it asks for something else as well. */
export function asksToRemove(query: Element): boolean {
  if (query.getChild('remove') === undefined) return false
  if (query.elements.length > 1) throw new StanzaError('bad-request', { text: 'remove stands alone' })
  return true
}

/** Name and password as given. */
export interface Credentials {
  readonly username: string
  readonly password: string
}

/**
 * Reads name and password; a form goes before the old fields (§4 rule 5). Throws `missing` when one of them is absent or empty, bad-request
 * when the query is malformed.
 */
export function credentials(
  query: Element,
  formType: string,
  missing: 'bad-request' | 'not-acceptable',
): Credentials {
  const [form, more] = query.getChildren('x', NS.DATA)
  if (more !== undefined) throw new StanzaError('bad-request')
  const given = form === undefined ? oldFields(query) : formFields(form, formType)
  const { username = '', password = '' } = given
  // §3.1 note 1, §3.3: an empty password is none
  if (username === '' || password === '')
    throw new StanzaError(missing, { text: 'name and password are needed' })
  return { username, password }
}

function oldFields(query: Element): Partial<Credentials> {
  const one = (name: string): string => {
    const [element, more] = query.getChildren(name)
    if (more !== undefined) throw new StanzaError('bad-request')
    return element?.text() ?? ''
  }
  return { username: one('username'), password: one('password') }
}

function formFields(form: Element, formType: string): Partial<Credentials> {
  const optional = FIELDS.map((field) => ({ ...field, required: false }))
  const submitted = parseSubmit(form, optional, formType)
  return { username: submitted.get('username') ?? '', password: submitted.get('password') ?? '' }
}
