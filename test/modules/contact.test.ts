/** XEP-0157 in the form of XEP-0128: addresses of the operators. */
import { expect } from 'chai'
import contact from '../../modules/contact.ts'
import disco from '../../modules/disco.ts'
import { type TestHost, testHost } from '../helpers/host.ts'
import { discoInfo } from '../helpers/iq.ts'

const DATA = 'jabber:x:data'
const accounts = ['juliet']
const modules = [contact, disco]

async function forms(h: TestHost) {
  const juliet = await h.client('juliet@example.org/chamber')
  return (await discoInfo(juliet, 'example.org')).getChildren('x', DATA)
}

async function failure(options: object): Promise<string> {
  return await testHost({ modules, config: { contact: options } }).then(
    () => 'started',
    (error: Error) => error.message,
  )
}

describe('module contact (XEP-0157 §3)', () => {
  it('publishes the addresses of each role that has some', async () => {
    const options = {
      abuse: ['mailto:abuse@example.org', 'xmpp:abuse@example.org'],
      admin: ['xmpp:admins@example.org?message'],
      feedback: ['https://example.org/feedback'],
      sales: ['xmpp:bard@example.org'],
      security: ['xmpp:security@example.org'],
      status: ['https://status.example.org'],
      support: [],
    }
    await using h = await testHost({ modules, accounts, config: { contact: options } })
    const [form, ...more] = await forms(h)
    expect(more).to.deep.equal([])
    expect(form?.attr('type')).to.equal('result')
    const fields = form?.getChildren('field', DATA) ?? []
    expect(fields[0]?.attrs).to.include({ var: 'FORM_TYPE', type: 'hidden' })
    const values = fields.map((f) => [f.attr('var'), f.getChildren('value', DATA).map((v) => v.text())])
    expect(Object.fromEntries(values)).to.deep.equal({
      FORM_TYPE: ['http://jabber.org/network/serverinfo'],
      'abuse-addresses': options.abuse,
      'admin-addresses': options.admin,
      'feedback-addresses': options.feedback,
      'sales-addresses': options.sales,
      'security-addresses': options.security,
      'status-addresses': options.status,
    })
  })

  it('publishes nothing when nothing is configured', async () => {
    await using h = await testHost({ modules, accounts })
    expect(await forms(h)).to.deep.equal([])
  })

  it('is for the server only, not for accounts', async () => {
    const config = { contact: { admin: ['mailto:a@example.org'] } }
    await using h = await testHost({ modules, accounts, config })
    const juliet = await h.client('juliet@example.org/chamber')
    expect((await discoInfo(juliet, 'juliet@example.org')).getChildren('x', DATA)).to.deep.equal([])
  })

  it('refuses what is no URI (status-addresses MUST be one)', async () => {
    expect(await failure({ status: ['ask the porter'] })).to.match(/^module contact: status\.0: /)
    expect(await failure({ admin: ['admin@example.org'] })).to.match(/^module contact: admin\.0: /)
    expect(await failure({ abuse: 'mailto:abuse@example.org' })).to.match(/^module contact: abuse: /)
  })

  it('is gone after unload', async () => {
    const config = { contact: { admin: ['mailto:a@example.org'] } }
    await using h = await testHost({ modules, accounts, config })
    await h.unload('contact')
    expect(await forms(h)).to.deep.equal([])
  })
})
