/** server/xmpp/forms.ts: XEP-0004 and XEP-0068. */
import { expect } from 'chai'
import fc from 'fast-check'
import { StanzaError } from '../../server/xmpp/errors.ts'
import {
  type Field,
  formElement,
  parseForm,
  parseSubmit,
  resultElement,
  submitElement,
  tableElement,
} from '../../server/xmpp/forms.ts'
import { parseJid } from '../../server/xmpp/jid.ts'
import { NS } from '../../server/xmpp/ns.ts'
import { parseXml } from '../../server/xmpp/parser.ts'

const FIELDS = [
  { var: 'botname', type: 'text-single', label: 'The name of your bot', required: true },
  { var: 'description', type: 'text-multi', label: 'Helpful description' },
  { var: 'public', type: 'boolean' },
  { var: 'password', type: 'text-private' },
  { var: 'features', type: 'list-multi', options: [{ value: 'news', label: 'News' }, { value: 'search' }] },
  { var: 'maxsubs', type: 'list-single', options: [{ value: '20' }, { value: 'none', label: 'None' }] },
  { var: 'invitelist', type: 'jid-multi', desc: 'Tell all your friends about your new bot!' },
  { var: 'owner', type: 'jid-single' },
  { var: 'token', type: 'hidden' },
] as const satisfies readonly Field[]

const form = (inner: string, type = 'submit') =>
  parseXml(`<x xmlns='jabber:x:data' type='${type}'>${inner}</x>`)
const field = (name: string, ...values: string[]) =>
  `<field var='${name}'>${values.map((value) => `<value>${value}</value>`).join('')}</field>`
const NAME = field('botname', 'bot')

function condition(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof StanzaError) return error.condition
    throw error
  }
  return 'none'
}

const refusal = (inner: string, formType?: string) =>
  condition(() => parseSubmit(form(inner), FIELDS, formType))

describe('data forms: building (XEP-0004 §3)', () => {
  it('writes a form with FORM_TYPE first, descriptions, required marks, values and options in order', () => {
    const element = formElement(
      [{ type: 'fixed', text: 'Section 1' }, ...FIELDS],
      {
        botname: 'x<y',
        public: true,
        description: 'one\r\ntwo\nthree',
        features: ['news'],
        owner: parseJid('a@b'),
      },
      { formType: 'jabber:bot', title: 'Bot', instructions: 'Fill it in' },
    )
    expect(element.toString()).to.equal(
      "<x xmlns='jabber:x:data' type='form'><title>Bot</title><instructions>Fill it in</instructions>" +
        "<field var='FORM_TYPE' type='hidden'><value>jabber:bot</value></field>" +
        "<field type='fixed'><value>Section 1</value></field>" +
        "<field var='botname' type='text-single' label='The name of your bot'><required/><value>x&lt;y</value></field>" +
        "<field var='description' type='text-multi' label='Helpful description'><value>one</value><value>two</value><value>three</value></field>" +
        "<field var='public' type='boolean'><value>1</value></field><field var='password' type='text-private'/>" +
        "<field var='features' type='list-multi'><value>news</value><option label='News'><value>news</value></option><option><value>search</value></option></field>" +
        "<field var='maxsubs' type='list-single'><option><value>20</value></option><option label='None'><value>none</value></option></field>" +
        "<field var='invitelist' type='jid-multi'><desc>Tell all your friends about your new bot!</desc></field>" +
        "<field var='owner' type='jid-single'><value>a@b</value></field><field var='token' type='hidden'/></x>",
    )
  })

  it('writes a data set without the fields that have no value', () => {
    const element = resultElement(FIELDS, { public: false, botname: 'x' }, { formType: 'urn:x' })
    const read = parseForm(parseXml(element.toString()))
    expect(read.type).to.equal('result')
    expect(read.formType).to.equal('urn:x')
    expect([...read.fields.keys()]).to.deep.equal(['FORM_TYPE', 'botname', 'public'])
    expect(read.fields.get('public')?.values).to.deep.equal(['0'])
  })

  it('writes and reads a table: each item has each reported field (§3.4)', () => {
    const columns = [
      { var: 'name', type: 'text-single', label: 'Name' },
      { var: 'jid', type: 'jid-single' },
    ] as const satisfies readonly Field[]
    const element = tableElement(columns, [{ name: 'R', jid: parseJid('r@m') }, { name: 'J' }], {
      title: 'Found',
    })
    const read = parseForm(parseXml(element.toString()))
    expect(read.title).to.equal('Found')
    expect(read.reported.map((column) => [column.var, column.type, column.label])).to.deep.equal([
      ['name', 'text-single', 'Name'],
      ['jid', 'jid-single', undefined],
    ])
    expect(read.items.map((item) => item.get('jid')?.values)).to.deep.equal([['r@m'], ['']])
    expect(read.fields.size).to.equal(0)
  })
})

describe('data forms: reading (XEP-0004 §3)', () => {
  it('takes text-single for an unknown type, and no type for an absent one (§3.3, §3.2)', () => {
    const read = parseForm(
      form(
        "<field var='a' type='colour'/><field var='b'/><field type='fixed'><value>x</value></field>",
        'form',
      ),
    )
    expect([...read.fields.values()].map((received) => received.type)).to.deep.equal([
      'text-single',
      undefined,
    ])
  })

  it('ignores a FORM_TYPE that is not hidden, except in what is submitted (XEP-0068 §4.3, §4.1)', () => {
    const plain = "<field var='FORM_TYPE' type='text-single'><value>u</value></field>"
    const hidden = "<field var='FORM_TYPE' type='hidden'><value>u</value></field>"
    expect(parseForm(form(plain, 'form')).formType).to.equal(undefined)
    expect(parseForm(form(plain, 'result')).formType).to.equal(undefined)
    expect(parseForm(form(hidden, 'result')).formType).to.equal('u')
    expect(parseForm(form(field('FORM_TYPE', 'u'))).formType).to.equal('u')
  })

  it('refuses as bad-request what breaks the structure', () => {
    const broken: [text: string, type?: string][] = [
      ['', 'error'],
      ['', ''],
      ['<field><value>x</value></field>'],
      ["<field var=''/>"],
      [field('a', '1') + field('a', '2')],
      ["<field var='a' type='list-single'><option/></field>", 'form'],
      ["<field var='a' type='list-single'><option><value>1</value><value>2</value></option></field>", 'form'],
      ["<reported><field var='a'/></reported><reported><field var='a'/></reported>", 'result'],
      ["<reported><field var='a'/></reported><item><field var='b'/></item>", 'result'],
    ]
    for (const [text, type] of broken)
      expect(
        condition(() => parseForm(form(text, type))),
        text,
      ).to.equal('bad-request')
    expect(condition(() => parseForm(parseXml("<y xmlns='jabber:x:data' type='form'/>")))).to.equal(
      'bad-request',
    )
    expect(condition(() => parseForm(parseXml("<x xmlns='jabber:x:oob' type='form'/>")))).to.equal(
      'bad-request',
    )
    expect(condition(() => parseForm(parseXml("<x xmlns='jabber:x:data'/>")))).to.equal('bad-request')
  })
})

describe('data forms: submissions (XEP-0004 §3.2 to §4)', () => {
  it('gives typed values', () => {
    const inner =
      NAME +
      field('description', 'one', '', 'two') +
      field('public', 'true') +
      field('password', 'v3r0na') +
      field('features', 'search', 'news', 'search') +
      field('maxsubs', 'none') +
      field('invitelist', 'Juliet@Capulet.com', 'juliet@capulet.com', 'benvolio@montague.net') +
      field('owner', 'romeo@montague.net/Orchard') +
      field('token', 't') +
      field('FORM_TYPE', 'jabber:bot')
    const read = parseSubmit(form(inner), FIELDS, 'jabber:bot')
    expect(read.get('botname')).to.equal('bot')
    expect(read.get('description')).to.equal('one\n\ntwo')
    expect(read.get('public')).to.equal(true)
    expect(read.get('password')).to.equal('v3r0na')
    expect(read.get('features')).to.deep.equal(['search', 'news'])
    expect(read.get('maxsubs')).to.equal('none')
    expect(read.get('invitelist')?.map(String)).to.deep.equal(['juliet@capulet.com', 'benvolio@montague.net'])
    expect(read.get('owner')?.resource).to.equal('Orchard')
    expect(read.get('token')).to.equal('t')
    expect(read.unknown).to.deep.equal([])
  })

  it('tells an omitted field from an empty one (§3.5, §3.6)', () => {
    const inner = `${NAME}<field var='description'/>${field('features')}${field('maxsubs', '')}${field('owner', '')}${field('public')}`
    const read = parseSubmit(form(inner), FIELDS)
    expect([read.has('password'), read.get('password')]).to.deep.equal([false, undefined])
    expect([read.has('description'), read.get('description')]).to.deep.equal([true, ''])
    expect([read.has('features'), read.get('features')]).to.deep.equal([true, []])
    expect([read.has('maxsubs'), read.get('maxsubs')]).to.deep.equal([true, undefined])
    expect([read.has('owner'), read.get('owner')]).to.deep.equal([true, undefined])
    expect([read.has('public'), read.get('public')]).to.deep.equal([true, false])
  })

  it('takes both styles of booleans (§3.3 note 1) and refuses others', () => {
    for (const [text, value] of [
      ['0', false],
      ['false', false],
      ['1', true],
      ['true', true],
    ] as const) {
      expect(parseSubmit(form(NAME + field('public', text)), FIELDS).get('public')).to.equal(value)
    }
    for (const text of ['yes', 'TRUE', '2'])
      expect(refusal(NAME + field('public', text))).to.equal('not-acceptable')
  })

  it('refuses values that are not valid with not-acceptable (§4)', () => {
    expect(refusal(field('public', '1'))).to.equal('not-acceptable')
    expect(refusal(field('botname', ''))).to.equal('not-acceptable')
    expect(refusal(field('botname'))).to.equal('not-acceptable')
    expect(refusal(NAME + field('owner', '@'))).to.equal('not-acceptable')
    expect(refusal(NAME + field('invitelist', 'a@b', 'a b@c'))).to.equal('not-acceptable')
    expect(refusal(NAME + field('maxsubs', '21'))).to.equal('not-acceptable')
    expect(refusal(NAME + field('features', 'news', 'bogus'))).to.equal('not-acceptable')
  })

  it('refuses several values for a field of one (§3.2)', () => {
    for (const name of ['botname', 'public', 'password', 'maxsubs', 'owner']) {
      expect(refusal((name === 'botname' ? '' : NAME) + field(name, '1', '1')), name).to.equal('bad-request')
    }
    expect(refusal(NAME + field('token', '1', '2'))).to.equal('none')
  })

  it('lists fields nobody asked for, and wants the right form', () => {
    expect(
      parseSubmit(form(NAME + field('x', '1') + field('constructor', '2')), FIELDS).unknown,
    ).to.deep.equal(['x', 'constructor'])
    expect(refusal(NAME + field('FORM_TYPE', 'other'), 'jabber:bot')).to.equal('bad-request')
    expect(refusal(NAME, 'jabber:bot')).to.equal('none')
    for (const type of ['form', 'result', 'cancel']) {
      expect(condition(() => parseSubmit(form(NAME, type), FIELDS))).to.equal('bad-request')
    }
  })

  it('applies the check of a field to each value', () => {
    const fields = [
      {
        var: 'n',
        type: 'text-single',
        check: (value: string) => (Number(value) > 0 ? undefined : 'is not positive'),
      },
    ] as const satisfies readonly Field[]
    expect(parseSubmit(form(field('n', '3')), fields).get('n')).to.equal('3')
    expect(condition(() => parseSubmit(form(field('n', '-3')), fields))).to.equal('not-acceptable')
  })

  it('reads back what it writes', () => {
    const text = fc
      .string({ unit: 'grapheme', maxLength: 8 })
      .filter((value) => !/[^\P{C}]|\r|\n/u.test(value))
    fc.assert(
      fc.property(text, fc.array(text), fc.boolean(), (name, lines, open) => {
        fc.pre(name !== '')
        const values = { botname: name, description: lines.join('\n'), public: open, features: ['news'] }
        const wire = submitElement({ ...values, description: lines }, { formType: 'u' }).toString()
        const read = parseSubmit(parseXml(wire), FIELDS, 'u')
        expect(read.get('botname')).to.equal(name)
        expect(read.get('description')).to.equal(lines.join('\n'))
        expect(read.get('public')).to.equal(open)
        const again = formElement(FIELDS, values).withAttrs({ type: 'submit' })
        expect(parseSubmit(parseXml(again.toString()), FIELDS).get('description')).to.equal(lines.join('\n'))
      }),
    )
  })

  it('stays in its namespace', () => {
    const read = parseSubmit(
      form(`${NAME}<field xmlns='urn:other' var='public'><value>1</value></field>`),
      FIELDS,
    )
    expect(read.has('public')).to.equal(false)
    expect(submitElement({}).ns).to.equal(NS.DATA)
  })
})
