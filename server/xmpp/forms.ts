/**
 * Data forms (XEP-0004 2.13.2) with field names of a FORM_TYPE (XEP-0068 1.3.0): build forms and results, read and validate what was
 * submitted. Result sets stand in rsm.ts, dates in xml-time.ts. Without media (XEP-0221), layout (XEP-0141) and data types of XEP-0122;
 * a field's `check` does what those would.
 */
import { type Element, el } from './element.ts'
import { StanzaError } from './errors.ts'
import { JID, JidError, parseJid } from './jid.ts'
import { NS } from './ns.ts'

const FIELD_TYPES = [
  'boolean',
  'fixed',
  'hidden',
  'jid-multi',
  'jid-single',
  'list-multi',
  'list-single',
  'text-multi',
  'text-private',
  'text-single',
] as const

/** The types of §3.3. */
export type FieldType = (typeof FIELD_TYPES)[number]

/** One choice of a list field; labels and values are unique in the field (§3.3). */
export interface Option {
  readonly value: string
  readonly label?: string
}

/** A field as we define it: what is asked, and what is checked when it comes back. */
export interface Field {
  readonly var: string
  readonly type: Exclude<FieldType, 'fixed'>
  readonly label?: string
  readonly desc?: string
  /** Must be submitted, and not empty. */
  readonly required?: boolean
  /** The choices of a list; without them any value is taken. */
  readonly options?: readonly Option[]
  /** A further rule for each value: what is wrong with it, undefined when nothing is. */
  readonly check?: (value: string) => string | undefined
}

/** Text between fields (§3.3, "fixed"). */
export interface FixedText {
  readonly type: 'fixed'
  readonly text: string
}

/** What a field can be filled with. Text with line breaks becomes several values in text-multi; undefined leaves the field empty. */
export type FieldInput = string | number | boolean | JID | readonly (string | JID)[] | undefined

/** Values by field name. The names are ours, never from the wire. */
export type FormValues = Readonly<Record<string, FieldInput>>

/** What stands around the fields. */
export interface FormFrame {
  /** Value of the hidden field FORM_TYPE (XEP-0068 §3.1). */
  readonly formType?: string
  readonly title?: string
  readonly instructions?: string
}

function texts(input: FieldInput, type: FieldType): readonly string[] {
  if (input === undefined) return []
  // XML Schema boolean; the digit is what the examples of XEP-0004 show
  if (typeof input === 'boolean') return [input ? '1' : '0']
  if (typeof input === 'string') return type === 'text-multi' ? input.split(/\r\n|\r|\n/) : [input]
  if (typeof input === 'number' || input instanceof JID) return [String(input)]
  return input.map(String)
}

const valueElements = (values: readonly string[]) => values.map((value) => el('value', NS.DATA, {}, value))

function formTypeField(formType: string | undefined): Element | undefined {
  if (formType === undefined) return undefined
  return el('field', NS.DATA, { var: 'FORM_TYPE', type: 'hidden' }, ...valueElements([formType]))
}

function frame(type: string, head: FormFrame, content: readonly (Element | undefined)[]): Element {
  return el(
    'x',
    NS.DATA,
    { type },
    head.title === undefined ? undefined : el('title', NS.DATA, {}, head.title),
    head.instructions === undefined ? undefined : el('instructions', NS.DATA, {}, head.instructions),
    formTypeField(head.formType),
    ...content,
  )
}

/** A form to fill in (§3.1, type "form"), with the values it has now. */
export function formElement(
  fields: readonly (Field | FixedText)[],
  values: FormValues = {},
  head: FormFrame = {},
): Element {
  const content = fields.map((field) =>
    field.type === 'fixed'
      ? el('field', NS.DATA, { type: 'fixed' }, ...valueElements([field.text]))
      : el(
          'field',
          NS.DATA,
          { var: field.var, type: field.type, label: field.label },
          field.desc === undefined ? undefined : el('desc', NS.DATA, {}, field.desc),
          field.required === true ? el('required', NS.DATA) : undefined,
          ...valueElements(texts(values[field.var], field.type)),
          ...(field.options ?? []).map((option) =>
            el('option', NS.DATA, { label: option.label }, ...valueElements([option.value])),
          ),
        ),
  )
  return frame('form', head, content)
}

/** A set of data (§3.1, type "result"); fields without a value are left out. */
export function resultElement(fields: readonly Field[], values: FormValues, head: FormFrame = {}): Element {
  const content = fields
    .filter((field) => values[field.var] !== undefined)
    .map((field) => {
      const attrs = { var: field.var, type: field.type, label: field.label }
      return el('field', NS.DATA, attrs, ...valueElements(texts(values[field.var], field.type)))
    })
  return frame('result', head, content)
}

/** A table (§3.4): every item has each reported field, empty when it has no value. */
export function tableElement(
  fields: readonly Field[],
  rows: readonly FormValues[],
  head: FormFrame = {},
): Element {
  const header = fields.map((field) =>
    el('field', NS.DATA, { var: field.var, type: field.type, label: field.label }),
  )
  const items = rows.map((row) => {
    const cells = fields.map((field) => {
      const values = texts(row[field.var], field.type)
      return el('field', NS.DATA, { var: field.var }, ...valueElements(values.length === 0 ? [''] : values))
    })
    return el('item', NS.DATA, {}, ...cells)
  })
  return frame('result', head, [el('reported', NS.DATA, {}, ...header), ...items])
}

/** A filled form (§3.1, type "submit"), for requests of our own. */
export function submitElement(values: FormValues, head: FormFrame = {}): Element {
  const content = Object.entries(values).map(([name, input]) =>
    el('field', NS.DATA, { var: name }, ...valueElements(texts(input, 'text-single'))),
  )
  return frame('submit', head, content)
}

/** A field as it came. */
export interface ReceivedField {
  readonly var: string
  /** As given, text-single when unknown (§3.3); undefined when absent, which it may be outside of forms to fill in (§3.2). */
  readonly type: FieldType | undefined
  readonly label: string | undefined
  readonly required: boolean
  readonly values: readonly string[]
  readonly options: readonly Option[]
}

/** A form as it came, well-formed but not validated. */
export interface ReceivedForm {
  readonly type: 'form' | 'submit' | 'cancel' | 'result'
  /** XEP-0068 §4.3: in "form" and "result" only when the field is hidden. */
  readonly formType: string | undefined
  readonly title: string | undefined
  readonly instructions: readonly string[]
  /** Fields by name, FORM_TYPE among them; fixed fields without a name are left out. */
  readonly fields: ReadonlyMap<string, ReceivedField>
  /** Header of a table, empty when the form is none (§3.4). */
  readonly reported: readonly ReceivedField[]
  readonly items: readonly ReadonlyMap<string, ReceivedField>[]
}

function bad(text: string): StanzaError {
  return new StanzaError('bad-request', { text })
}

function readField(element: Element): ReceivedField | undefined {
  const type = element.attr('type')
  const name = element.attr('var')
  if (name === undefined || name === '') {
    if (type === 'fixed') return undefined
    throw bad('field without a name')
  }
  const options = element.getChildren('option').map((option) => {
    const [value, second] = option.getChildren('value')
    // §3.2: one and only one value
    if (value === undefined || second !== undefined) throw bad(`option of ${name} needs one value`)
    const label = option.attr('label')
    return { value: value.text(), ...(label === undefined ? {} : { label }) }
  })
  return {
    var: name,
    type: type === undefined ? undefined : (FIELD_TYPES.find((known) => known === type) ?? 'text-single'),
    label: element.attr('label'),
    required: element.getChild('required') !== undefined,
    values: element.getChildren('value').map((value) => value.text()),
    options,
  }
}

function readFields(parent: Element): Map<string, ReceivedField> {
  const fields = new Map<string, ReceivedField>()
  for (const element of parent.getChildren('field')) {
    const field = readField(element)
    if (field === undefined) continue
    // §3.2: the name identifies the field in the form
    if (fields.has(field.var)) throw bad(`field ${field.var} stands twice`)
    fields.set(field.var, field)
  }
  return fields
}

const FORM_TYPES = ['form', 'submit', 'cancel', 'result'] as const

/** Reads a form of any type. Throws StanzaError bad-request when it breaks the rules of §3.1 to §3.4. */
export function parseForm(x: Element): ReceivedForm {
  if (!x.is('x', NS.DATA)) throw bad('not a data form')
  const type = FORM_TYPES.find((known) => known === x.attr('type'))
  if (type === undefined) throw bad('data form of unknown type')
  const fields = readFields(x)
  const context = fields.get('FORM_TYPE')
  const [header, second] = x.getChildren('reported')
  if (second !== undefined) throw bad('more than one <reported/>')
  const reported = header === undefined ? [] : [...readFields(header).values()]
  const items = x.getChildren('item').map(readFields)
  // §3.4: each item has each reported field
  if (!items.every((item) => reported.every((field) => item.has(field.var))))
    throw bad('item without a reported field')
  return {
    type,
    formType: type === 'submit' || context?.type === 'hidden' ? context?.values[0] : undefined,
    title: x.getChildText('title'),
    instructions: x.getChildren('instructions').map((element) => element.text()),
    fields,
    reported,
    items,
  }
}

type Value<T extends FieldType> = T extends 'boolean'
  ? boolean
  : T extends 'jid-single'
    ? JID
    : T extends 'jid-multi'
      ? readonly JID[]
      : T extends 'list-multi'
        ? readonly string[]
        : string

/** Validated values of a submitted form. */
export interface Submission<F extends Field> {
  /** Whether the field was submitted, with a value or empty; a field that was not keeps its value (§3.5). */
  has(name: F['var']): boolean
  /**
   * The value: boolean, JID, list or text (lines of text-multi joined by a line break). Undefined when not submitted, and for an empty
   * jid-single or list-single, which unsets it (§3.6).
   */
  get<V extends F['var']>(name: V): Value<Extract<F, { readonly var: V }>['type']> | undefined
  /** Names of submitted fields that were not asked for, which §3.1 says to ignore and some protocols to refuse. */
  readonly unknown: readonly string[]
}

/**
 * Reads and validates a form of type "submit" against the fields we asked for. Without FORM_TYPE in it the context decides (XEP-0068
 * §4.1). Throws StanzaError bad-request when it is malformed, of another type or FORM_TYPE, not-acceptable when a value is not valid or a
 * required one is missing (§4). A form of type "cancel" is the caller's to look for (`x.attr('type')`).
 */
export function parseSubmit<const F extends Field>(
  x: Element,
  fields: readonly F[],
  formType?: string,
): Submission<F> {
  const form = parseForm(x)
  if (form.type !== 'submit') throw bad('data form is not submitted')
  if (formType !== undefined && form.formType !== undefined && form.formType !== formType) {
    throw bad('data form has another FORM_TYPE')
  }
  const values = new Map<string, Value<FieldType> | undefined>()
  for (const field of fields) {
    const received = form.fields.get(field.var)
    if (received !== undefined) values.set(field.var, valueOf(field, received.values))
    const missing = received === undefined || received.values.every((value) => value === '')
    if (field.required === true && missing) throw notAcceptable(field, 'is required')
  }
  const known = new Set(['FORM_TYPE', ...fields.map((field) => field.var)])
  return {
    has: (name) => values.has(name),
    // The map holds for each name what valueOf made of the type of that field
    get: <V extends F['var']>(name: V) =>
      values.get(name) as Value<Extract<F, { readonly var: V }>['type']> | undefined,
    unknown: [...form.fields.keys()].filter((name) => !known.has(name)),
  }
}

function notAcceptable(field: Field, problem: string): StanzaError {
  return new StanzaError('not-acceptable', { text: `${field.label ?? field.var}: ${problem}` })
}

function valueOf(field: Field, values: readonly string[]): Value<FieldType> | undefined {
  const several = field.type.endsWith('-multi') || field.type === 'hidden'
  // §3.2
  if (values.length > 1 && !several) throw bad(`more than one value for ${field.var}`)
  const given = field.type === 'text-multi' ? values : values.filter((value) => value !== '')
  for (const value of given) {
    const problem = field.check?.(value)
    if (problem !== undefined) throw notAcceptable(field, problem)
  }
  const [first] = given
  switch (field.type) {
    case 'boolean':
      return booleanOf(field, first)
    case 'jid-single':
      return first === undefined ? undefined : jidOf(field, first)
    case 'jid-multi': {
      // §3.3: duplicates are ignored
      const unique = new Map(given.map((value) => jidOf(field, value)).map((jid) => [jid.toString(), jid]))
      return [...unique.values()]
    }
    case 'list-single':
      return first === undefined ? undefined : choiceOf(field, first)
    case 'list-multi':
      return [...new Set(given.map((value) => choiceOf(field, value)))]
    case 'text-multi':
      return given.join('\n')
    case 'hidden':
    case 'text-private':
    case 'text-single':
      return first ?? ''
  }
}

function booleanOf(field: Field, value: string | undefined): boolean {
  // §3.3: the default is false; both styles of XML Schema count
  if (value === undefined || value === '0' || value === 'false') return false
  if (value === '1' || value === 'true') return true
  throw notAcceptable(field, 'is not a boolean')
}

function jidOf(field: Field, value: string): JID {
  try {
    return parseJid(value)
  } catch (error) {
    if (error instanceof JidError) throw notAcceptable(field, 'is not an address')
    throw error
  }
}

function choiceOf(field: Field, value: string): string {
  // §3.3: no new options
  if (field.options === undefined || field.options.some((option) => option.value === value)) return value
  throw notAcceptable(field, 'is not one of the options')
}
